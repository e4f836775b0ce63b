//! Whether this process records metrics.

use std::sync::atomic::{AtomicBool, Ordering};

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Called once the recorder is in place.
pub(super) fn set_installed() {
    INSTALLED.store(true, Ordering::Release);
}

/// Whether handles that are made now record anything.
pub(super) fn is_installed() -> bool {
    INSTALLED.load(Ordering::Acquire)
}
