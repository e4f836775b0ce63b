//! The whole of Carga: the real programs, seen from outside.
//!
//! A scenario here is written once and runs twice: `embedded`, as `carga serve` in a directory of its own, and `distributed`, as
//! `carga-api` and `carga-worker` on real servers. What concerns one of them alone is in the folder of that name.
//!
//! `place` says where a test's Carga keeps everything, `app` starts it and asks it, `files` and `answers` are what goes in and what
//! comes out; every other file is a group of promises.

#[macro_use]
mod place;
mod answers;
mod app;
mod files;

mod bad_input;
mod contract;
mod expansion;
mod exports;
mod fixtures;
mod happy;
mod preview;
mod progress;
mod random_files;
mod refused;
mod rejects;
mod reversal;
mod stopping;
mod truncated;

mod distributed;
mod embedded;
