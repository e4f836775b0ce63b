//! Scenarios for embedded mode only: one process and its data directory.

mod commands;
mod datasets;
mod full_disk;
mod heartbeat;
mod kills;
mod merging;
mod reverse;
