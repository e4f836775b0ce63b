//! Promises of the store on Postgres.

mod errors;
mod fence;
mod sessions;
