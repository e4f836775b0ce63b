//! A build that cannot check JWTs.

use carga_common::settings::{AccessSettings, Authentication};
use carga_intake::refusal::Refusal;

use super::JwtFault;
use crate::caller::Caller;

/// Checks the JWTs of another issuer. This build has none.
#[derive(Debug)]
pub enum JwtVerifier {}

impl JwtVerifier {
    /// Fails if JWTs should be accepted. Returns `None` otherwise, also if requests need no key.
    pub async fn start(
        settings: &AccessSettings,
        authentication: &Authentication,
    ) -> Result<Option<Self>, JwtFault> {
        match (&settings.jwt, authentication) {
            (Some(_), Authentication::On(_)) => Err(JwtFault::Unsupported),
            _ => Ok(None),
        }
    }

    pub(in crate::access) async fn caller(&self, _text: &str) -> Result<Caller, Refusal> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use carga_common::settings::{Mode, Settings};

    use super::*;

    #[tokio::test]
    async fn a_setting_of_jwts_is_refused_only_if_requests_need_a_key() {
        let settings = Settings::read(Mode::Embedded, &|name| {
            (name == "CARGA_JWT_JWKS").then(|| "/no/such/jwks.json".to_owned())
        });
        let settings = settings.unwrap().access;
        let off = JwtVerifier::start(&settings, &Authentication::Off).await;
        assert!(off.unwrap().is_none());
        let on = JwtVerifier::start(&settings, &Authentication::On(None)).await;
        assert!(matches!(on, Err(JwtFault::Unsupported)));
    }
}
