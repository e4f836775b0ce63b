//! The promises of the CSV reader: it reads a valid file as the `csv` crate does, the result
//! does not depend on how the bytes arrive, and every row is accounted for.
//!
//! `outcome` reads a file in pieces and checks the account of its rows, and `strategies` makes the
//! sizes of the pieces and the options. `oracle` is a second reader, which `account` compares with
//! the real one. Every other file is a group of promises.

#[path = "../limits/mod.rs"]
mod limits;
mod oracle;
mod outcome;
mod strategies;

mod account;
mod cells;
mod fuzz;
mod long_rows;
mod properties;
mod rows;
