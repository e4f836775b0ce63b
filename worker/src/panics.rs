//! Caught panics as text.

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
