//! A build that cannot check JWTs.

use carga_common::settings::{AccessSettings, Authentication};
use carga_intake::refusal::Refusal;

use super::JwtFault;
use crate::caller::Caller;

/// Checks the JWTs of another issuer. This build has none.
#[derive(Debug)]
pub enum JwtVerifier {}

impl JwtVerifier {
    /// Fails if a JWT should be accepted, and returns `None` otherwise.
    pub async fn start(
        settings: &AccessSettings,
        _authentication: &Authentication,
    ) -> Result<Option<Self>, JwtFault> {
        match settings.jwt {
            Some(_) => Err(JwtFault::Unsupported),
            None => Ok(None),
        }
    }

    pub(in crate::access) async fn caller(&self, _text: &str) -> Result<Caller, Refusal> {
        match *self {}
    }
}
