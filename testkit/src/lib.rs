//! Real servers for Carga's tests and for `make services`: no mocks, no Docker.
//!
//! | Module | Provides |
//! |---|---|
//! | [`postgres`], [`redis`], [`rabbit`] | one private server each, restartable on the same port |
//! | [`prometheus`] | a Prometheus that scrapes Carga's programs, and `promtool` |
//! | [`s3`], [`localstack`] | the same for S3, and [`S3Access`] for clients |
//! | [`services`] | a set of all four that outlives its caller; tests use the [`shared`] one |
//! | [`scope`] | one test's database, queue, key prefix and bucket on that set |
//! | [`tls`] | a private authority, and proxies that add TLS to a server or to a client |
//! | [`data_dir`] | one test's data directory for `carga`, which needs no server |
//! | [`disk`] | a file system of a few mebibytes that a test can fill |
//! | [`relay`] | a TCP relay whose connections fall silent, are cut or are slow |
//! | [`otlp`] | a collector of spans, for one test |
//! | [`process`] | Carga's programs as child processes: logs, signals, memory |
//! | [`fixtures`] | the real flights file |
//! | [`wait`] | polling with a deadline |
//! | [`packages`] | the installation of the servers' Debian packages |
//!
//! A dropped server handle removes its server and its directory. A test run that dies leaves both
//! behind. The next run recognises them by their dead owner and removes them ([`reap_stale`]).

#![cfg_attr(test, allow(clippy::expect_used, clippy::unwrap_used))]

mod bucket;
pub mod cli;
pub mod data_dir;
pub mod disk;
pub mod fixtures;
mod home;
pub mod localstack;
mod mounts;
pub mod otlp;
pub mod packages;
mod paths;
mod pid;
pub mod postgres;
pub mod process;
mod programs;
pub mod prometheus;
pub mod rabbit;
pub mod redis;
pub mod relay;
pub mod s3;
pub mod scope;
mod server;
pub mod services;
pub mod tls;
mod versions;
pub mod wait;

pub use bucket::{Objects, S3Access};
pub use data_dir::DataDir;
pub use disk::SmallDisk;
pub use home::reap_stale;
pub use localstack::LocalStack;
pub use otlp::{Collector, SentSpan};
pub use paths::{repository, target_dir};
pub use pid::{ProcessId, Usage};
pub use postgres::Postgres;
pub use process::{Binary, Running, command};
pub use prometheus::{Prometheus, promtool};
pub use rabbit::Rabbit;
pub use redis::Redis;
pub use relay::{Cut, Relay};
pub use s3::S3;
pub use scope::Scope;
pub use services::{S3Kind, Services, State, shared};
pub use tls::{Authority, TlsProxy, TlsTunnel};
pub use wait::eventually;
