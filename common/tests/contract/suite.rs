//! Runs a contract case as a test.

use std::time::Duration;

use anyhow::{Context, Result};

/// Longer than the slowest case takes on a busy machine.
const CASE_TIMEOUT: Duration = Duration::from_secs(180);

/// What one case runs on: a directory or a part of a server that no other case uses.
pub(crate) trait Fixture: Sized {
    async fn start() -> Result<Self>;

    /// Removes the fixture's data. This is not called after a failed case, so that its data can be
    /// examined.
    async fn end(self) -> Result<()>;
}

/// Runs a case on a new fixture.
pub(crate) async fn run<F: Fixture>(case: impl AsyncFnOnce(&F) -> Result<()>) -> Result<()> {
    let fixture = F::start().await?;
    tokio::time::timeout(CASE_TIMEOUT, case(&fixture))
        .await
        .with_context(|| format!("the case did not end within {CASE_TIMEOUT:?}"))??;
    fixture.end().await
}

/// Makes one test per case. `$file` is the module of the case. A subject with several modules has
/// them in a folder, which `in` names.
macro_rules! tests {
    ($fixture:ident { $($file:ident { $($case:ident)* })* }) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                crate::suite::run::<super::$fixture>(super::$file::$case).await
            }
        )*)*
    };
    ($fixture:ident in $folder:ident { $($file:ident { $($case:ident)* })* }) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                crate::suite::run::<super::$fixture>(super::$folder::$file::$case).await
            }
        )*)*
    };
}
