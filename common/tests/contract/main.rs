//! The contracts of the four ports.
//!
//! Every promise of a port is one case: a small function that knows the port and nothing of its
//! adapters. A port lists its cases once and makes a test of each for every adapter, so that all
//! adapters have the same tests: `queue::rabbit::a_dropped_delivery_is_redelivered`,
//! `queue::sqlite::a_dropped_delivery_is_redelivered`. `scripts/contracts.sh` shows who keeps what.

#[macro_use]
mod suite;

mod archive;
mod progress;
mod queue;
mod sample;
mod store;
