//! The promises of `BatchStore`.

pub(super) mod fence;
pub(super) mod storing;
