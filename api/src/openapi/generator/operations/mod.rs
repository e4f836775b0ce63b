//! The operations, one file per group of routes.

mod audit;
mod datasets;
mod events;
mod files;
mod keys;
mod log;
mod public;
mod uploads;

use super::operation::Operation;

/// All operations, in any order.
pub(super) fn all() -> Vec<Operation> {
    let groups = [
        files::operations(),
        uploads::operations(),
        datasets::operations(),
        events::operations(),
        keys::operations(),
        audit::operations(),
        log::operations(),
        public::operations(),
    ];
    groups.into_iter().flatten().collect()
}
