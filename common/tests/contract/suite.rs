//! How a case becomes a test.

use std::time::Duration;

use anyhow::{Context, Result};

/// Enough for the slowest case on a busy machine; what takes longer hangs.
const AT_MOST: Duration = Duration::from_secs(180);

/// Where one case runs: a corner of a server, or a directory, that nobody else uses.
pub(crate) trait Fixture: Sized {
    async fn start() -> Result<Self>;

    /// Gives back what it took. A case that fails does not get here, so that there is something
    /// to look at.
    async fn end(self) -> Result<()>;
}

/// Runs a case on a fixture of its own.
pub(crate) async fn run<F: Fixture>(case: impl AsyncFnOnce(&F) -> Result<()>) -> Result<()> {
    let fixture = F::start().await?;
    tokio::time::timeout(AT_MOST, case(&fixture))
        .await
        .context("the case hangs")??;
    fixture.end().await
}

/// One test per case, on one fixture. `$file` is the module of the case, beside the list or, for a
/// subject with several files, in its folder (`in uploads`).
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
