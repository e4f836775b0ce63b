//! The contracts of the four ports, and of the rate limiter.
//!
//! Every promise of a port is one case: a small function that uses the port and knows no adapter. A
//! port lists its cases once, and each case becomes one test per adapter:
//! `queue::rabbit::a_dropped_delivery_is_redelivered`,
//! `queue::sqlite::a_dropped_delivery_is_redelivered`. `scripts/contracts.sh` counts the cases of
//! each adapter.

#[macro_use]
mod suite;

mod archive;
mod limiter;
mod progress;
mod queue;
mod sample;
mod store;
