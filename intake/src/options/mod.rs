//! What a client may say about its file. One table serves the query, the form, the command line
//! and the documentation.
//!
//! `upload` holds the options of one upload. `values` reads their values, and `table` lists every
//! option with its name, its values and how it is set. `setting` sets options by their names in the
//! table.

mod setting;
mod table;
mod upload;
mod values;

pub use table::{OF_DATASETS, OPTIONS, OptionSpec, REPEATABLE};
pub use upload::Options;

#[cfg(test)]
mod tests;
