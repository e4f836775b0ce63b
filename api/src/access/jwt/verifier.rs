//! Checks the JWTs of another issuer.

use std::slice;
use std::sync::{Arc, Mutex};

use carga_common::access::KeyDigest;
use carga_common::settings::{AccessSettings, Authentication, JwtKeys, JwtSettings};
use carga_common::sync::lock;
use carga_intake::refusal::{Refusal, RefusalKind};
use jiff::Timestamp;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::JwtFault;
use super::claims::{ClaimFault, ClaimNames, Claims};
use super::key_set::IssuerKey;
use super::key_source::KeySource;
use crate::access::entries::{Entries, Entry};
use crate::access::refusals::invalid;
use crate::caller::Caller;

/// How many seconds the clock of the issuer may differ.
const LEEWAY: u64 = 30;

/// Checks the JWTs of one issuer.
#[derive(Debug)]
pub struct JwtVerifier {
    keys: Keys,
    claims: ClaimNames,
    /// Whether the settings have an audience.
    has_audience: bool,
    /// The callers of JWTs that were valid a moment ago, by the digests of the JWTs. The signature
    /// of a public key takes longer to check than everything else.
    valid: Mutex<Entries<[u8; 32], Caller>>,
}

#[derive(Debug)]
enum Keys {
    Secret(Arc<IssuerKey>),
    Public {
        source: Arc<KeySource>,
        /// Reads the keys again until it is dropped.
        _refreshing: AbortOnDropHandle<()>,
    },
}

impl JwtVerifier {
    /// Reads the keys of the issuer. Returns `None` if no JWT is accepted, or if requests need no
    /// key.
    pub async fn start(
        settings: &AccessSettings,
        authentication: &Authentication,
    ) -> Result<Option<Self>, JwtFault> {
        let (Some(settings), Authentication::On(_)) = (&settings.jwt, authentication) else {
            return Ok(None);
        };
        let rules = rules(settings);
        let keys = match &settings.keys {
            JwtKeys::Secret(secret) => {
                let secret = secret.expose().as_bytes();
                Keys::Secret(Arc::new(IssuerKey::secret(secret, &rules)))
            }
            location => {
                let source = KeySource::open(location, rules).await?;
                let _refreshing = source.refresh();
                Keys::Public {
                    source,
                    _refreshing,
                }
            }
        };
        Ok(Some(Self {
            keys,
            claims: ClaimNames::of(settings),
            has_audience: settings.audience.is_some(),
            valid: Mutex::default(),
        }))
    }

    /// The holder of this JWT.
    pub(in crate::access) async fn caller(&self, text: &str) -> Result<Caller, Refusal> {
        let digest = *KeyDigest::of(text).as_bytes();
        let known = lock(&self.valid).fresh(&digest);
        let now = Timestamp::now();
        let has_ended = |caller: &Caller| caller.expires_at.is_some_and(|end| end <= now);
        // The whole check of a JWT that has ended knows the leeway.
        if let Some(caller) = known.filter(|caller| !has_ended(caller)) {
            return Ok(caller);
        }
        let asked_at = Instant::now();
        let caller = self.check(text).await?;
        let entry = Entry {
            found: caller.clone(),
            asked_at,
        };
        lock(&self.valid).insert(digest, entry);
        Ok(caller)
    }

    async fn check(&self, text: &str) -> Result<Caller, Refusal> {
        let header = decode_header(text).map_err(|_| invalid("-", "not a JWT"))?;
        // An extension that the issuer declares critical must be understood (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(invalid("-", "a JWT with `crit`"));
        }
        let claims = self.claims(text, header.kid.as_deref(), header.alg).await?;
        // The library takes a malformed `aud` for none.
        if !self.has_audience && claims.contains_key("aud") {
            return Err(invalid("-", reason(&ErrorKind::InvalidAudience)));
        }
        self.claims.caller(&claims).map_err(|fault| match fault {
            ClaimFault::Invalid(claim) => {
                invalid("-", &format!("a JWT without a valid value of {claim}"))
            }
            ClaimFault::NoScope => no_scope(self.claims.scopes()),
        })
    }

    /// The claims of a JWT whose signature and times are valid. An issuer may have replaced a key
    /// by one with the same `kid`, so a wrong signature is checked again with keys that are read
    /// anew.
    async fn claims(
        &self,
        text: &str,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Claims, Refusal> {
        let checked = match &self.keys {
            Keys::Secret(key) if key.allows(algorithm) => decoded(text, slice::from_ref(key)),
            Keys::Secret(_) => decoded(text, &[]),
            Keys::Public { source, .. } => {
                let checked = decoded(text, &source.keys(id, algorithm).await?);
                match checked {
                    Err(Refused::Signature) if source.read_after_unknown().await? => {
                        decoded(text, &source.keys(id, algorithm).await?)
                    }
                    checked => checked,
                }
            }
        };
        checked.map_err(|refused| {
            invalid(
                "-",
                match &refused {
                    Refused::NoKey => "no key for the `kid` and `alg` of the JWT",
                    Refused::Signature => reason(&ErrorKind::InvalidSignature),
                    Refused::Other(error) => reason(error.kind()),
                },
            )
        })
    }
}

/// Why a JWT is refused.
#[derive(Debug)]
enum Refused {
    /// The issuer has no key that could check it.
    NoKey,
    Signature,
    Other(Error),
}

/// The claims of a JWT that one of these keys has signed. A faulty key does not hide the others.
fn decoded(text: &str, keys: &[Arc<IssuerKey>]) -> Result<Claims, Refused> {
    let mut refused = Refused::NoKey;
    for key in keys {
        match decode::<Claims>(text, &key.key, &key.validation) {
            Ok(checked) => return Ok(checked.claims),
            Err(error) => match error.kind() {
                ErrorKind::InvalidSignature => refused = Refused::Signature,
                ErrorKind::InvalidKeyFormat
                | ErrorKind::InvalidRsaKey(_)
                | ErrorKind::InvalidEcdsaKey
                | ErrorKind::InvalidEddsaKey
                | ErrorKind::Provider(_) => tracing::debug!(%error, "skipped a key for JWTs"),
                _ => return Err(Refused::Other(error)),
            },
        }
    }
    Err(refused)
}

/// What every JWT must have. Without an audience in the settings, a JWT that has one is refused.
fn rules(settings: &JwtSettings) -> Validation {
    let mut rules = Validation {
        leeway: LEEWAY,
        validate_nbf: true,
        validate_aud: true,
        ..Validation::default()
    };
    let mut required = vec!["exp"];
    if let Some(issuer) = &settings.issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &settings.audience {
        rules.set_audience(&[audience]);
        required.push("aud");
    }
    rules.set_required_spec_claims(&required);
    rules
}

/// The reason for the log, without anything of the JWT.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "a JWT with a wrong signature",
        ErrorKind::ExpiredSignature => "an expired JWT",
        ErrorKind::ImmatureSignature => "a JWT that is not valid yet (`nbf`)",
        ErrorKind::InvalidIssuer => "a JWT of another `iss` than CARGA_JWT_ISSUER",
        ErrorKind::InvalidAudience => "a JWT with an `aud` other than CARGA_JWT_AUDIENCE",
        ErrorKind::MissingRequiredClaim(_) => {
            "a JWT without `exp`, or without the `iss` or `aud` of the settings"
        }
        ErrorKind::InvalidAlgorithm => "a JWT with an algorithm that its key does not allow",
        _ => "a malformed JWT",
    }
}

fn no_scope(claim: &str) -> Refusal {
    let message = format!(
        "the claim `{claim}` of the JWT (CARGA_JWT_SCOPES_CLAIM) has none of the scopes `admin`, `manage`, `read` and `upload`; ask its issuer for one"
    );
    Refusal::new(RefusalKind::Forbidden, "missing_scope", message)
}

#[cfg(test)]
mod tests;
