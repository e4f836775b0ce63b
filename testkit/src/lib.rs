//! Real servers for Carga's tests and for `make services`: no mocks, no Docker.
//!
//! | Module | What it gives |
//! |---|---|
//! | [`postgres`], [`redis`], [`rabbit`], [`s3`], [`localstack`] | one private server each: start, stop, SIGKILL, start again on the same port |
//! | [`services`] | the set of all four, surviving its caller; shared by every test binary ([`shared`]) |
//! | [`scope`] | one test's own database, queue, key prefix and bucket on that set |
//! | [`data_dir`] | one test's own data directory for `carga`, which needs no server |
//! | [`disk`] | a file system of a few mebibytes, to be filled up |
//! | [`process`] | Carga's programs as child processes: logs, signals, memory |
//! | [`fixtures`] | the real flights file |
//! | [`wait`] | polling with a deadline, instead of sleeping |
//! | [`packages`] | installs the Debian packages that the servers come from |
//!
//! A server handle removes its server and its directory when dropped. A test run that dies leaves both behind: the next run
//! recognises them by their owner's process ([`reap_stale`]) and clears them away.

#![cfg_attr(test, allow(clippy::expect_used, clippy::unwrap_used))]

mod bucket;
pub mod cli;
pub mod data_dir;
pub mod disk;
pub mod fixtures;
mod home;
pub mod localstack;
mod mounts;
pub mod packages;
mod paths;
mod pid;
pub mod postgres;
pub mod process;
pub mod rabbit;
pub mod redis;
pub mod s3;
pub mod scope;
mod server;
pub mod services;
pub mod wait;

pub use bucket::{Objects, S3Access};
pub use data_dir::DataDir;
pub use disk::SmallDisk;
pub use home::reap_stale;
pub use localstack::LocalStack;
pub use paths::{repository, target_dir};
pub use pid::{ProcessId, Usage};
pub use postgres::Postgres;
pub use process::{Binary, Running, command};
pub use rabbit::Rabbit;
pub use redis::Redis;
pub use s3::S3;
pub use scope::Scope;
pub use services::{S3Kind, Services, State, shared};
pub use wait::eventually;
