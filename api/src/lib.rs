//! Carga over HTTP.
//!
//! [`server`] accepts connections and shuts down, and [`router`] is the table of contents. The
//! handlers in `routes` parse a request, call one function, and answer; `unmatched` answers the
//! other requests. [`access`] checks the key of a request and tells the handlers who the `caller`
//! is. `form` finds the file in a request, and `receive` passes it to the intake (`carga-intake`).
//! `content_type` reads what the content type says about the file, and `disposition` reads the
//! names of a form's part; both use `header_parameters`. `coding` checks how the body is encoded,
//! and `json_body` reads definitions and the fields of keys and tokens. `origin` refuses requests
//! from web pages of other origins, and `cors` lets the pages of allowed origins read answers.
//! `security_headers` protects the users of browsers; `browsers` applies these three rules in two
//! layers. [`transport`] adds TLS. `request_id` opens the span of a request, and `access_log`
//! writes its line. `measure` counts all requests. `limits` counts the requests of each address and
//! key, and refuses too many. These layers tell each other about a request by `marks`, `preflight`
//! recognizes preflight requests (CORS), and `paths` has the paths that some layers treat
//! differently. `readiness` asks the dependencies whether they answer, and `shared_check` limits
//! how often. `idempotency` reads the header `Idempotency-Key`. [`problem`] turns refusals into
//! answers, and [`view`] shows uploads and datasets as JSON. [`openapi`] has the OpenAPI document
//! and its page.

pub mod access;
mod access_log;
mod browsers;
mod caller;
mod coding;
mod content_type;
mod cors;
mod disposition;
mod drain_body;
mod form;
mod header_parameters;
mod idempotency;
mod json_body;
mod limits;
mod marks;
mod measure;
pub mod openapi;
mod origin;
mod paths;
mod preflight;
pub mod problem;
mod query;
mod readiness;
mod receive;
mod request_id;
pub mod router;
mod routes;
mod security_headers;
pub mod server;
mod shared_check;
mod state;
pub mod transport;
mod unmatched;
pub mod view;
