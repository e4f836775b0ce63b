//! Carga's HTTP intake.
//!
//! [`server`] listens and stops, `router` is the table of contents, `routes` extract and answer, `intake` turns a body into
//! durable batches, [`problem`] turns refusals into answers, `view` shows an upload.

pub mod csv;
pub mod intake;
mod leftover;
pub mod problem;
pub mod report;
mod request_id;
mod router;
mod routes;
pub mod server;
pub mod state;
pub mod view;
