//! A newer `libsqlite3-sys` under the version number that sqlx-sqlite 0.8.6 asks for: see the
//! manifest.

pub use current::*;
