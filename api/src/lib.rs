//! Carga over HTTP.
//!
//! [`server`] listens and stops, `router` is the table of contents, `routes` extract and answer.
//! `form` finds the file in a request, and `receive` hands it to the intake (`carga-intake`).
//! [`problem`] makes answers of refusals, [`view`] shows an upload.

mod drain_body;
mod form;
pub mod problem;
mod query;
mod receive;
mod request_id;
mod router;
mod routes;
pub mod server;
mod state;
pub mod view;
