//! The promises of `UploadStore`.

pub(super) mod listing;
pub(super) mod records;
pub(super) mod reversal;
