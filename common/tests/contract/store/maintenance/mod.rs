//! The promises of `MaintenanceStore`.

pub(super) mod expiry;
pub(super) mod leftovers;
pub(super) mod removal;
pub(super) mod retention;
