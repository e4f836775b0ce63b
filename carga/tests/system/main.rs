//! System tests: they run Carga's real programs as processes.
//!
//! Each scenario is written once and runs twice: `embedded`, with `carga serve` in its own
//! directory, and `distributed`, with `carga-api` and `carga-worker` on real servers.
//! Scenarios for one mode only are in the folder of that name.
//!
//! `harness` provides a test's directory or servers, and reads what Carga stored there. `app`
//! starts Carga and sends requests. `files` makes the files to send, `random` draws random values,
//! and `answers` checks the responses. `document` reads the OpenAPI document. Every other file is a
//! group of promises.

#[macro_use]
mod harness;
mod answers;
mod app;
mod document;
mod files;
mod random;

mod access;
mod archive;
mod bad_input;
mod contract;
mod cors;
mod datasets;
mod events;
mod exports;
mod fixtures;
mod happy_path;
mod http_details;
mod idempotency;
mod limits;
mod logs;
mod memory;
mod metrics;
mod openapi;
mod origins;
mod oversized;
mod preview;
mod progress;
mod random_files;
mod refused_requests;
mod rejects;
mod replay;
mod reversal;
mod security_headers;
mod shutdown;
mod tenants;
mod tls;
mod traces;
mod truncated;

mod distributed;
mod embedded;
