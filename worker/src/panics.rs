//! Catches panics, so that a panic ends one step of a loop and not the loop. Turns panics into
//! text.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

/// The pause after a panic, so that a loop whose every step panics does not spin.
const PAUSE: Duration = Duration::from_secs(1);

/// The message of a caught panic, for a log or a dead letter's reason.
pub(crate) fn panic_reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "the worker panicked: {}",
        text.unwrap_or("without a message")
    )
}

/// Runs one step of a loop that must go on. A panic drops everything that the step held, such as
/// its deliveries, which then return to the queue. After a panic it pauses and returns `None`.
pub(crate) async fn survive<T>(step: &'static str, work: impl Future<Output = T>) -> Option<T> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    let reason = match outcome {
        Ok(value) => return Some(value),
        Err(panic) => panic_reason(panic.as_ref()),
    };
    tracing::error!(
        step,
        reason,
        "a step of the worker panicked; the worker goes on"
    );
    tokio::time::sleep(PAUSE).await;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_only_its_step_and_a_pause_follows() {
        let started = tokio::time::Instant::now();
        assert_eq!(survive("a good step", async { 7 }).await, Some(7));
        assert!(started.elapsed().is_zero());
        // The assertion fails, because no time has passed.
        let panicking = async { assert!(!started.elapsed().is_zero(), "this step is broken") };
        assert_eq!(survive("a broken step", panicking).await, None);
        assert_eq!(started.elapsed(), PAUSE);
    }
}
