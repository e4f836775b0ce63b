//! The OpenAPI document of this API, and its page.
//!
//! The document is the file `docs/openapi.json`, which is a part of the program. Tests make it from
//! the list of routes, the table of options, the types and `docs/api.md` (`generator`), and fail if
//! the file differs. So a build needs no crate for it, and a change of the API shows in a diff.

#[cfg(test)]
mod generator;
mod page;

pub(crate) use self::page::{POLICY, page};

/// The document, as `GET /openapi.json` answers it.
pub const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
