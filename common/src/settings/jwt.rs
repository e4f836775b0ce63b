//! The JWTs of another issuer, such as an identity provider, that requests may carry as keys.

use std::fmt;
use std::path::PathBuf;

use super::reader::Reader;
use super::secret::SecretUrl;

/// The shortest secret, in bytes. HS256 needs a key of at least 256 bits (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;

/// The longest secret. A longer one is probably another file by mistake.
const MAX_SECRET: usize = 1024;

/// Which JWTs are accepted, and which of their claims have the tenant, the scopes and the dataset.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// What their signatures are checked with.
    pub keys: JwtKeys,
    /// The value that the claim `iss` must have.
    pub issuer: Option<String>,
    /// The value that the claim `aud` must have or contain. Without it, a JWT with that claim is
    /// refused, because the JWT is for another service.
    pub audience: Option<String>,
    /// The claim with the tenant.
    pub tenant_claim: String,
    /// The claim with the scopes.
    pub scopes_claim: String,
    /// The claim with the only dataset to which the holder may send files.
    pub dataset_claim: Option<String>,
}

/// What the signatures of JWTs are checked with.
#[derive(Debug, Clone)]
pub enum JwtKeys {
    /// `CARGA_JWT_SECRET`: a secret that the issuer shares.
    Secret(JwtSecret),
    /// `CARGA_JWT_JWKS`: the public keys of the issuer (RFC 7517, 5) are in this file.
    File(PathBuf),
    /// `CARGA_JWT_JWKS`: the issuer publishes its public keys at this URL.
    Url(SecretUrl),
}

/// A secret that the issuer of JWTs shares. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSecret(String);

impl JwtSecret {
    /// The secret, for the check of a signature.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JwtSettings {
    /// `None` if no JWT is accepted.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let keys = JwtKeys::read(reader);
        // Read in any case, so that `carga config` lists them.
        let issuer = reader.optional("CARGA_JWT_ISSUER", None);
        let audience = reader.optional("CARGA_JWT_AUDIENCE", None);
        let tenant_claim = reader.text("CARGA_JWT_TENANT_CLAIM", "tenant");
        let scopes_claim = reader.text("CARGA_JWT_SCOPES_CLAIM", "scope");
        let dataset_claim = reader.optional("CARGA_JWT_DATASET_CLAIM", None);
        Some(Self {
            keys: keys?,
            issuer,
            audience,
            tenant_claim,
            scopes_claim,
            dataset_claim,
        })
    }
}

impl JwtKeys {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let secret = reader.password("CARGA_JWT_SECRET");
        let location = reader.url_or_path("CARGA_JWT_JWKS");
        match (secret, location) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                reader.fault(
                    "CARGA_JWT_SECRET and CARGA_JWT_JWKS are both set: set only one of them, because a JWT has one kind of signature"
                        .to_owned(),
                );
                None
            }
            (Some(secret), None) => {
                let length = secret.len();
                if !(MIN_SECRET..=MAX_SECRET).contains(&length) {
                    reader.fault(format!(
                        "CARGA_JWT_SECRET: it has {length} bytes, and {MIN_SECRET} to {MAX_SECRET} are needed"
                    ));
                }
                Some(Self::Secret(JwtSecret(secret)))
            }
            (None, Some(location)) if !location.expose().contains("://") => {
                Some(Self::File(location.expose().into()))
            }
            (None, Some(url)) => {
                if let Err(fault) = check(&url) {
                    reader.fault(format!("CARGA_JWT_JWKS={url}: {fault}"));
                }
                Some(Self::Url(url))
            }
        }
    }
}

fn check(url: &SecretUrl) -> Result<(), &'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err("use an http: or https: URL, or the path of a file");
    }
    match url.has_user() {
        true => Err("a URL with a user or a password is not supported; use the path of a file"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::settings::{Mode, Settings, SettingsError};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Settings::read(Mode::Embedded, &|name| {
            variables.get(name).map(|value| (*value).to_owned())
        })
    }

    fn jwt(variables: &[(&str, &str)]) -> Option<JwtSettings> {
        read(variables).unwrap().access.jwt
    }

    #[test]
    fn no_jwt_is_accepted_without_a_key() {
        assert!(jwt(&[]).is_none());
        assert!(jwt(&[("CARGA_JWT_ISSUER", "x"), ("CARGA_JWT_SECRET", "")]).is_none());
    }

    #[test]
    fn keys_are_a_secret_a_file_or_a_url() {
        let keys = |name, value| jwt(&[(name, value)]).unwrap().keys;
        let secret = keys("CARGA_JWT_SECRET", SECRET);
        assert!(matches!(&secret, JwtKeys::Secret(secret) if secret.expose() == SECRET));
        let file = keys("CARGA_JWT_JWKS", "/etc/carga/jwks.json");
        assert!(matches!(file, JwtKeys::File(path) if path.ends_with("jwks.json")));
        for url in [
            "https://id.example.org/jwks",
            "http://127.0.0.1:8080/jwks?x=y",
        ] {
            let found = keys("CARGA_JWT_JWKS", url);
            assert!(matches!(found, JwtKeys::Url(found) if found.expose() == url));
        }
    }

    #[test]
    fn claims_have_names_that_settings_change() {
        let secret = ("CARGA_JWT_SECRET", SECRET);
        let default = jwt(&[secret]).unwrap();
        assert_eq!(default.tenant_claim, "tenant");
        assert_eq!(default.scopes_claim, "scope");
        let unset = (default.issuer, default.audience, default.dataset_claim);
        assert_eq!(unset, (None, None, None));
        let given = jwt(&[
            secret,
            ("CARGA_JWT_ISSUER", "https://id.example.org/"),
            ("CARGA_JWT_AUDIENCE", "carga"),
            ("CARGA_JWT_TENANT_CLAIM", "org"),
            ("CARGA_JWT_SCOPES_CLAIM", "scp"),
            ("CARGA_JWT_DATASET_CLAIM", "table"),
        ]);
        let given = given.unwrap();
        assert_eq!(given.issuer.as_deref(), Some("https://id.example.org/"));
        assert_eq!(given.audience.as_deref(), Some("carga"));
        assert_eq!((&*given.tenant_claim, &*given.scopes_claim), ("org", "scp"));
        assert_eq!(given.dataset_claim.as_deref(), Some("table"));
    }

    #[test]
    fn faulty_keys_are_reported_without_the_secret() {
        let both = [("CARGA_JWT_SECRET", SECRET), ("CARGA_JWT_JWKS", "/x")];
        let short = [("CARGA_JWT_SECRET", &SECRET[1..])];
        for variables in [&both[..], &short] {
            let fault = read(variables).unwrap_err().to_string();
            assert!(fault.contains("CARGA_JWT_SECRET"), "{fault}");
            assert!(!fault.contains(&SECRET[1..9]), "{fault}");
        }
        for url in ["ftp://h/x", "https://u:s3cret@h/x", "https://u@h/x"] {
            let fault = read(&[("CARGA_JWT_JWKS", url)]).unwrap_err().to_string();
            assert!(fault.contains("CARGA_JWT_JWKS="), "{fault}");
            assert!(!fault.contains("s3cret"), "{fault}");
        }
    }

    #[test]
    fn the_secret_and_the_query_of_the_url_are_masked() {
        let settings = |name, value| read(&[(name, value)]).unwrap();
        let shown = |settings: &Settings, name: &str| {
            let mut shown = settings.effective.iter();
            shown
                .find(|found| found.name == name)
                .unwrap()
                .value
                .clone()
        };
        let secret = settings("CARGA_JWT_SECRET", SECRET);
        assert!(!format!("{secret:?}").contains(&SECRET[..8]));
        assert_eq!(shown(&secret, "CARGA_JWT_SECRET").as_deref(), Some("***"));
        let url = settings("CARGA_JWT_JWKS", "https://h/x?code=s3cret");
        assert!(!format!("{url:?}").contains("s3cret"));
        let expected = Some("https://h/x?***");
        assert_eq!(shown(&url, "CARGA_JWT_JWKS").as_deref(), expected);
        let file = settings("CARGA_JWT_JWKS", "/etc/jwks.json");
        let expected = Some("/etc/jwks.json");
        assert_eq!(shown(&file, "CARGA_JWT_JWKS").as_deref(), expected);
    }
}
