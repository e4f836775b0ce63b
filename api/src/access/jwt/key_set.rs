//! The public keys of an issuer (RFC 7517, 5), each with the one algorithm that it is for.

use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

/// The most keys of an issuer. Providers have two to ten.
const MAX_KEYS: usize = 100;

/// The most keys with which one signature is checked.
const MAX_TRIED: usize = 4;

/// A key with which signatures are checked.
#[derive(Debug)]
pub(super) struct IssuerKey {
    /// The `kid`, which names the key in the headers of JWTs.
    id: Option<String>,
    pub(super) key: DecodingKey,
    /// What a JWT with this key must have, with the algorithms that the key allows.
    pub(super) validation: Validation,
}

impl IssuerKey {
    /// A secret that the issuer shares. It allows only signatures with a secret, so a JWT can never
    /// be signed with a public key that is taken for a secret.
    pub(super) fn secret(secret: &[u8], rules: &Validation) -> Self {
        Self {
            id: None,
            key: DecodingKey::from_secret(secret),
            validation: Validation {
                algorithms: vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
                ..rules.clone()
            },
        }
    }

    /// A public key. The reason is for the log.
    fn public(jwk: &Jwk, rules: &Validation) -> Result<Self, &'static str> {
        let common = &jwk.common;
        let is_for_signatures = common
            .public_key_use
            .as_ref()
            .is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let operations = common.key_operations.as_ref();
        if !is_for_signatures
            || operations.is_some_and(|names| !names.contains(&KeyOperations::Verify))
        {
            return Err("it is not for signatures");
        }
        let algorithm = algorithm(jwk)?;
        let key = DecodingKey::from_jwk(jwk).map_err(|_| "its numbers are malformed")?;
        Ok(Self {
            id: common.key_id.clone(),
            key,
            validation: Validation {
                algorithms: vec![algorithm],
                ..rules.clone()
            },
        })
    }

    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }
}

/// The one algorithm of a public key: its `alg`, or the usual one for its type. The header of a JWT
/// does not choose (RFC 8725, 3.1).
fn algorithm(jwk: &Jwk) -> Result<Algorithm, &'static str> {
    let usual = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Algorithm::ES256,
            EllipticCurve::P384 => Algorithm::ES384,
            _ => return Err("its curve is unknown"),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        // A secret does not belong into a document that others can read.
        AlgorithmParameters::OctetKey(_) => return Err("it is a secret"),
        _ => return Err("its type is unknown"),
    };
    let Some(named) = jwk.common.key_algorithm else {
        return Ok(usual);
    };
    let named = Algorithm::try_from(named).map_err(|_| "its algorithm is unknown")?;
    let is_rsa = usual == Algorithm::RS256 && named.family() == AlgorithmFamily::Rsa;
    match is_rsa || named == usual {
        true => Ok(named),
        false => Err("its algorithm does not fit its type"),
    }
}

/// The keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Arc<IssuerKey>>);

/// A set as it is written. One key of an unknown kind must not hide the others, so each is parsed
/// alone.
#[derive(Debug, Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// The keys for signatures in this document. `rules` are the other rules for their JWTs.
    pub(super) fn parse(json: &[u8], rules: &Validation) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(json)
            .map_err(|error| format!("it is not a JWK set, `{{ \"keys\": […] }}`: {error}"))?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!(
                "it has {} keys; the limit is {MAX_KEYS}",
                document.keys.len()
            ));
        }
        let mut keys = Vec::new();
        for value in document.keys {
            let jwk: Result<Jwk, _> = serde_json::from_value(value);
            let jwk = jwk.map_err(|_| "it is malformed or of an unknown type");
            match jwk.and_then(|jwk| IssuerKey::public(&jwk, rules)) {
                Ok(key) => keys.push(Arc::new(key)),
                Err(reason) => tracing::debug!(reason, "skipped a key of the issuer of JWTs"),
            }
        }
        match keys.is_empty() {
            true => Err(
                "it has no key for signatures of type RSA, EC (P-256 or P-384) or Ed25519"
                    .to_owned(),
            ),
            false => Ok(Self(keys)),
        }
    }

    /// The keys for a JWT with this header. Several keys may have one `kid`. Unless both the JWT
    /// and the key have one, the set must have only one key, or every JWT with a wrong signature
    /// would be checked with all keys.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<Arc<IssuerKey>> {
        let fitting = self.0.iter().filter(|key| key.allows(algorithm));
        let named = fitting.filter(|key| match (id, &key.id) {
            (Some(id), Some(of_key)) => id == of_key,
            _ => self.0.len() == 1,
        });
        named.take(MAX_TRIED).cloned().collect()
    }

    /// Whether the set has a key for JWTs with this `kid`.
    pub(super) fn knows(&self, id: &str) -> bool {
        match &self.0[..] {
            [single] if single.id.is_none() => true,
            keys => keys.iter().any(|key| key.id.as_deref() == Some(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn ec(more: Value) -> Value {
        let mut key = json!({ "kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y });
        let more = more.as_object().unwrap().clone();
        key.as_object_mut().unwrap().extend(more);
        key
    }

    fn rsa(more: Value) -> Value {
        let mut key =
            json!({ "kty": "RSA", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLO", "e": "AQAB" });
        let more = more.as_object().unwrap().clone();
        key.as_object_mut().unwrap().extend(more);
        key
    }

    fn parse(keys: &[Value]) -> Result<KeySet, String> {
        let document = json!({ "keys": keys }).to_string();
        KeySet::parse(document.as_bytes(), &Validation::default())
    }

    /// The algorithms of the only key.
    fn algorithms(key: Value) -> Option<Vec<Algorithm>> {
        let set = parse(&[key]).ok()?;
        Some(set.0[0].validation.algorithms.clone())
    }

    #[test]
    fn the_key_pins_its_algorithm() {
        assert_eq!(algorithms(rsa(json!({}))), Some(vec![Algorithm::RS256]));
        let pss = rsa(json!({ "alg": "PS512" }));
        assert_eq!(algorithms(pss), Some(vec![Algorithm::PS512]));
        assert_eq!(algorithms(ec(json!({}))), Some(vec![Algorithm::ES256]));
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": EC_X });
        assert_eq!(algorithms(ed), Some(vec![Algorithm::EdDSA]));
        for wrong in ["HS256", "ES384", "RS256", "none", "ECDH-ES"] {
            assert_eq!(algorithms(ec(json!({ "alg": wrong }))), None, "{wrong}");
        }
        for wrong in ["HS256", "ES256", "RSA-OAEP"] {
            assert_eq!(algorithms(rsa(json!({ "alg": wrong }))), None, "{wrong}");
        }
    }

    #[test]
    fn keys_for_other_purposes_are_skipped() {
        let signing = ec(json!({ "kid": "s", "use": "sig", "key_ops": ["verify"] }));
        let others = [
            ec(json!({ "kid": "e", "use": "enc" })),
            ec(json!({ "kid": "o", "key_ops": ["deriveKey"] })),
            json!({ "kty": "oct", "kid": "h", "k": EC_X, "alg": "HS256" }),
            json!({ "kty": "AKP", "kid": "a", "pub": "x" }),
            json!({ "kty": "EC", "kid": "p", "crv": "P-521", "x": EC_X, "y": EC_Y }),
            json!("x"),
        ];
        let all = [&others[..], &[signing]].concat();
        let set = parse(&all).unwrap();
        assert_eq!(set.0.len(), 1);
        assert!(set.knows("s") && !set.knows("e"));
        assert!(parse(&others).unwrap_err().contains("no key"));
    }

    #[test]
    fn a_key_is_found_by_its_id_and_algorithm() {
        let (one, two) = (ec(json!({ "kid": "1" })), rsa(json!({ "kid": "2" })));
        let set = parse(&[one.clone(), two]).unwrap();
        let found = |set: &KeySet, id, algorithm| set.find(id, algorithm).len();
        assert_eq!(found(&set, Some("1"), Algorithm::ES256), 1);
        assert_eq!(found(&set, Some("2"), Algorithm::RS256), 1);
        for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES384] {
            assert_eq!(found(&set, Some("1"), algorithm), 0, "{algorithm:?}");
        }
        assert_eq!(found(&set, Some("3"), Algorithm::ES256), 0);
        assert_eq!(found(&set, None, Algorithm::ES256), 0);
        let single = parse(&[one]).unwrap();
        assert_eq!(found(&single, None, Algorithm::ES256), 1);
        assert_eq!(found(&single, None, Algorithm::HS256), 0);
        assert_eq!(found(&single, Some("2"), Algorithm::ES256), 0);
        assert!(single.knows("1") && !single.knows("2"));
    }

    #[test]
    fn a_single_key_without_an_id_is_for_every_id() {
        let nameless = ec(json!({}));
        let single = parse(std::slice::from_ref(&nameless)).unwrap();
        for id in [None, Some("1")] {
            assert_eq!(single.find(id, Algorithm::ES256).len(), 1);
            assert!(single.find(id, Algorithm::RS256).is_empty());
        }
        assert!(single.knows("1"));
        let two = parse(&[nameless, rsa(json!({ "kid": "2" }))]).unwrap();
        assert!(two.find(Some("1"), Algorithm::ES256).is_empty());
        assert!(!two.knows("1"));
    }

    #[test]
    fn all_keys_of_an_id_are_tried_up_to_four() {
        let same = |number: usize| parse(&vec![ec(json!({ "kid": "1" })); number]).unwrap();
        for (number, expected) in [(2, 2), (4, 4), (5, 4)] {
            let found = same(number).find(Some("1"), Algorithm::ES256);
            assert_eq!(found.len(), expected);
        }
    }

    #[test]
    fn a_secret_allows_only_signatures_with_a_secret() {
        let secret = IssuerKey::secret(&[0; 32], &Validation::default());
        for allowed in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert!(secret.allows(allowed));
        }
        for other in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            assert!(!secret.allows(other));
        }
    }

    #[test]
    fn a_document_is_bounded_and_must_be_a_set() {
        let many: Vec<Value> = (0..101)
            .map(|id| ec(json!({ "kid": id.to_string() })))
            .collect();
        assert!(parse(&many).unwrap_err().contains("100"));
        assert!(parse(&many[..100]).is_ok());
        for text in ["", "[]", "{}", r#"{ "keys": {} }"#] {
            assert!(KeySet::parse(text.as_bytes(), &Validation::default()).is_err());
        }
    }
}
