use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeys, KeySize};
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carga_common::settings::{Mode, Settings};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn claims() -> Value {
    json!({ "sub": "alice", "tenant": "acme", "scope": "read upload", "exp": now() + 600 })
}

/// The claims with changes. A change to null removes the claim.
fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    claims
}

async fn verifier(variables: &[(&str, &str)]) -> JwtVerifier {
    let settings = Settings::read(Mode::Embedded, &|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    let on = Authentication::On(None);
    let verifier = JwtVerifier::start(&settings.unwrap().access, &on).await;
    verifier.unwrap().unwrap()
}

fn with_secret(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret);
    encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn signed(claims: &Value) -> String {
    with_secret(Algorithm::HS256, SECRET.as_bytes(), claims)
}

async fn is_valid(verifier: &JwtVerifier, text: &str) -> bool {
    match verifier.caller(text).await {
        Ok(caller) => {
            assert_eq!(caller.tenant().as_str(), "acme");
            true
        }
        Err(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
            assert_eq!(refusal.failure.code, "invalid_key");
            false
        }
    }
}

#[tokio::test]
async fn a_jwt_with_the_shared_secret_has_the_rights_in_its_claims() {
    let verifier = verifier(&[("CARGA_JWT_SECRET", SECRET)]).await;
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let text = with_secret(algorithm, SECRET.as_bytes(), &claims());
        let caller = verifier.caller(&text).await.unwrap();
        assert_eq!(caller.scopes, "read upload".parse().unwrap());
        assert_eq!(caller.key_id(), Some("jwt:alice"));
        assert!(caller.key.is_none());
        let refusal = caller.may_make_tokens().unwrap_err();
        assert_eq!(refusal.failure.code, "token_not_allowed");
    }
}

#[tokio::test]
async fn a_jwt_with_a_wrong_signature_is_refused() {
    let verifier = verifier(&[("CARGA_JWT_SECRET", SECRET)]).await;
    let text = signed(&claims());
    assert!(is_valid(&verifier, &text).await);
    let other = with_secret(
        Algorithm::HS256,
        SECRET.to_uppercase().as_bytes(),
        &claims(),
    );
    assert!(!is_valid(&verifier, &other).await);
    // The signature of other claims.
    let more = signed(&claims_with(json!({ "scope": "admin" })));
    let (forged, _) = more.rsplit_once('.').unwrap();
    let (_, signature) = text.rsplit_once('.').unwrap();
    assert!(!is_valid(&verifier, &format!("{forged}.{signature}")).await);
    for text in [
        "eyJ",
        "eyJ.x.y",
        &format!("{text}."),
        &text[..text.len() - 1],
    ] {
        assert!(!is_valid(&verifier, text).await);
    }
}

/// A text with this header and no signature.
fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", encode(header), encode(claims))
}

#[tokio::test]
async fn a_jwt_without_an_algorithm_is_refused() {
    let verifier = verifier(&[("CARGA_JWT_SECRET", SECRET)]).await;
    for algorithm in ["none", "None", "NONE", "", "HS256"] {
        let text = unsigned(&json!({ "typ": "JWT", "alg": algorithm }), &claims());
        assert!(!is_valid(&verifier, &text).await, "{algorithm}");
    }
    assert!(!is_valid(&verifier, &unsigned(&json!({ "typ": "JWT" }), &claims())).await);
}

#[tokio::test]
async fn the_times_of_a_jwt_are_checked_with_thirty_seconds_of_leeway() {
    let verifier = verifier(&[("CARGA_JWT_SECRET", SECRET)]).await;
    for (changes, expected) in [
        (json!({ "exp": now() - 10 }), true),
        (json!({ "exp": now() - 45 }), false),
        (json!({ "exp": null }), false),
        (json!({ "exp": "soon" }), false),
        (json!({ "nbf": now() - 10 }), true),
        (json!({ "nbf": now() + 10 }), true),
        (json!({ "nbf": now() + 45 }), false),
        (json!({ "nbf": "soon" }), false),
        (json!({ "nbf": "0" }), false),
        (json!({ "nbf": true }), false),
        (json!({ "nbf": [0] }), false),
        (json!({ "nbf": {} }), false),
    ] {
        let text = signed(&claims_with(changes.clone()));
        assert_eq!(is_valid(&verifier, &text).await, expected, "{changes}");
    }
    let mut claims = claims();
    claims["nbf"] = Value::Null;
    assert!(!is_valid(&verifier, &signed(&claims)).await);
}

#[test]
fn a_key_that_cannot_check_the_signature_does_not_hide_the_next_one() {
    let rules = Validation::default();
    let good = Arc::new(IssuerKey::secret(SECRET.as_bytes(), &rules));
    let mut faulty = IssuerKey::secret(SECRET.as_bytes(), &rules);
    let public = DecodingKey::from_rsa_raw_components(&[1], &[3]);
    faulty.key = public;
    let faulty = Arc::new(faulty);
    let text = signed(&claims());
    for keys in [[&good, &faulty], [&faulty, &good]] {
        let keys = keys.map(Arc::clone);
        decoded(&text, &keys).unwrap();
    }
    let none = decoded(&text, &[faulty]).unwrap_err();
    assert!(matches!(none, Refused::NoKey), "{none:?}");
}

#[tokio::test]
async fn issuer_and_audience_must_be_those_of_the_settings() {
    let given = [
        ("CARGA_JWT_SECRET", SECRET),
        ("CARGA_JWT_ISSUER", "https://id.example.org/"),
        ("CARGA_JWT_AUDIENCE", "carga"),
    ];
    let strict = verifier(&given).await;
    let lax = verifier(&given[..1]).await;
    let issuer = "https://id.example.org/";
    for (changes, by_strict, by_lax) in [
        (json!({ "iss": issuer, "aud": "carga" }), true, false),
        (
            json!({ "iss": issuer, "aud": ["other", "carga"] }),
            true,
            false,
        ),
        (json!({ "iss": issuer, "aud": "other" }), false, false),
        (json!({ "iss": issuer, "aud": 7 }), false, false),
        (json!({ "iss": issuer, "aud": ["carga", 7] }), false, false),
        (json!({ "iss": issuer, "aud": [] }), false, false),
        (json!({ "iss": issuer, "aud": {} }), false, false),
        (json!({ "iss": issuer }), false, true),
        (json!({ "iss": [7], "aud": "carga" }), false, false),
        (
            json!({ "iss": "https://evil.example/", "aud": "carga" }),
            false,
            false,
        ),
        (json!({ "aud": "carga" }), false, false),
        (json!({}), false, true),
    ] {
        let text = signed(&claims_with(changes.clone()));
        assert_eq!(is_valid(&strict, &text).await, by_strict, "{changes}");
        assert_eq!(is_valid(&lax, &text).await, by_lax, "{changes}");
    }
    let mut claims = claims_with(json!({ "iss": issuer }));
    claims["aud"] = Value::Null;
    let text = signed(&claims);
    assert!(!is_valid(&strict, &text).await && !is_valid(&lax, &text).await);
}

#[tokio::test]
async fn a_jwt_needs_a_tenant_and_one_of_the_scopes() {
    let verifier = verifier(&[("CARGA_JWT_SECRET", SECRET)]).await;
    for tenant in [json!(null), json!("Acme"), json!(["acme"])] {
        let text = signed(&claims_with(json!({ "tenant": tenant })));
        assert!(!is_valid(&verifier, &text).await, "{tenant}");
    }
    for scope in [json!(null), json!("openid profile")] {
        let text = signed(&claims_with(json!({ "scope": scope })));
        let refusal = verifier.caller(&text).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Forbidden);
        assert_eq!(refusal.failure.code, "missing_scope");
        let message = refusal.failure.message;
        assert!(message.contains("CARGA_JWT_SCOPES_CLAIM"), "{message}");
    }
}

#[tokio::test]
async fn a_critical_extension_is_refused() {
    let verifier = verifier(&[("CARGA_JWT_SECRET", SECRET)]).await;
    let header = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::default()
    };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let text = encode(&header, &claims(), &key).unwrap();
    assert!(!is_valid(&verifier, &text).await);
}

/// The bytes of PKCS #8 before the RSA key itself, which PKCS #1 has alone.
const PKCS8_HEAD_BYTES: usize = 26;

/// A key pair of RSA: its private key, its JWK, and its public key as others may have it.
fn rsa(id: &str) -> (EncodingKey, Value, Vec<u8>) {
    let pair = RsaKeys::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let private = EncodingKey::from_rsa_der(&pkcs8.as_ref()[PKCS8_HEAD_BYTES..]);
    let pair = RsaKeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let public = pair.public_key();
    let number = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let modulus = number(public.modulus().big_endian_without_leading_zero());
    let exponent = number(public.exponent().big_endian_without_leading_zero());
    let jwk = json!({ "kty": "RSA", "kid": id, "use": "sig", "n": modulus, "e": exponent });
    let der: PublicKeyX509Der<'_> = public.as_der().unwrap();
    (private, jwk, der.as_ref().to_vec())
}

/// A JWT that names its key.
fn signed_with(key: &EncodingKey, algorithm: Algorithm, id: Option<&str>) -> String {
    let header = Header {
        kid: id.map(str::to_owned),
        ..Header::new(algorithm)
    };
    encode(&header, &claims(), key).unwrap()
}

#[tokio::test]
async fn a_public_key_checks_only_signatures_of_its_algorithm() {
    let (one, other) = (rsa("one"), rsa("other"));
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [one.1, other.1] }).to_string()).unwrap();
    let verifier = verifier(&[("CARGA_JWT_JWKS", file.to_str().unwrap())]).await;
    let text = signed_with(&one.0, Algorithm::RS256, Some("one"));
    assert!(is_valid(&verifier, &text).await);
    for (id, algorithm) in [
        (Some("other"), Algorithm::RS256),
        (Some("third"), Algorithm::RS256),
        (None, Algorithm::RS256),
        (Some("one"), Algorithm::RS512),
        (Some("one"), Algorithm::PS256),
    ] {
        let text = signed_with(&one.0, algorithm, id);
        assert!(!is_valid(&verifier, &text).await, "{id:?} {algorithm:?}");
    }
    // An attacker signs with the public key as an HMAC secret.
    let modulus = one.1["n"].as_str().unwrap();
    let jwk = one.1.to_string();
    for secret in [&one.2[..], modulus.as_bytes(), jwk.as_bytes()] {
        let key = EncodingKey::from_secret(secret);
        let text = signed_with(&key, Algorithm::HS256, Some("one"));
        assert!(!is_valid(&verifier, &text).await);
    }
    // A header that brings its own key.
    let header =
        json!({ "alg": "RS256", "kid": "one", "jwk": other.1, "jku": "http://127.0.0.1:1/" });
    assert!(!is_valid(&verifier, &unsigned(&header, &claims())).await);
}

#[tokio::test]
async fn a_key_is_replaced_by_another_one_with_the_same_id() {
    let (old, new) = (rsa("one"), rsa("one"));
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("jwks.json");
    let publish = |keys: &[&Value]| {
        std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    };
    publish(&[&old.1]);
    let verifier = verifier(&[("CARGA_JWT_JWKS", file.to_str().unwrap())]).await;
    let Keys::Public { source, .. } = &verifier.keys else {
        panic!("the keys are not public");
    };
    let text = signed_with(&new.0, Algorithm::RS256, Some("one"));
    let of_old = signed_with(&old.0, Algorithm::RS256, Some("one"));
    publish(&[&old.1, &new.1]);
    // The keys were read a moment ago.
    assert!(!is_valid(&verifier, &text).await);
    source.allow_reading().await;
    assert!(is_valid(&verifier, &text).await);
    assert!(is_valid(&verifier, &of_old).await);
    // A set of a single key without an id.
    let mut nameless = new.1.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    publish(&[&nameless]);
    source.allow_reading().await;
    let other = signed_with(&new.0, Algorithm::RS256, Some("two"));
    assert!(is_valid(&verifier, &other).await);
}

#[tokio::test]
async fn the_keys_are_not_read_if_requests_need_no_key() {
    let settings = Settings::read(Mode::Embedded, &|name| {
        (name == "CARGA_JWT_JWKS").then(|| "/no/such/jwks.json".to_owned())
    });
    let settings = settings.unwrap().access;
    let off = JwtVerifier::start(&settings, &Authentication::Off).await;
    assert!(off.unwrap().is_none());
    let on = JwtVerifier::start(&settings, &Authentication::On(None)).await;
    assert!(on.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_valid_jwt_is_kept_for_two_seconds_and_never_beyond_its_end() {
    let verifier = verifier(&[("CARGA_JWT_SECRET", SECRET)]).await;
    let kept = || lock(&verifier.valid).sizes().0;
    let text = signed(&claims());
    assert!(is_valid(&verifier, &text).await);
    assert_eq!(kept(), 1);
    // An answer that no check of this JWT gives shows that the kept one is used.
    let digest = *KeyDigest::of(&text).as_bytes();
    let mut found = lock(&verifier.valid).fresh(&digest).unwrap();
    found.tenant = "kept".parse().unwrap();
    let asked_at = Instant::now();
    lock(&verifier.valid).insert(digest, Entry { found, asked_at });
    let hit = verifier.caller(&text).await.unwrap();
    assert_eq!(hit.tenant().as_str(), "kept");
    // A forged one is not kept.
    assert!(!is_valid(&verifier, &format!("{text}x")).await);
    assert_eq!(kept(), 1);
    tokio::time::advance(crate::access::entries::LIFETIME).await;
    assert!(
        lock(&verifier.valid)
            .fresh(KeyDigest::of(&text).as_bytes())
            .is_none()
    );
    // An answer that is kept does not outlive the JWT.
    let ended = signed(&claims_with(json!({ "exp": now() - 45 })));
    let mut found = verifier.caller(&text).await.unwrap();
    assert_eq!(found.tenant().as_str(), "acme");
    found.expires_at = Timestamp::from_second(now() - 45).ok();
    let asked_at = Instant::now();
    let entry = Entry { found, asked_at };
    lock(&verifier.valid).insert(*KeyDigest::of(&ended).as_bytes(), entry);
    assert!(!is_valid(&verifier, &ended).await);
}

#[tokio::test]
async fn an_api_does_not_start_with_a_file_without_keys() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("jwks.json");
    for content in [None, Some("{}"), Some(r#"{ "keys": [] }"#)] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let settings = Settings::read(Mode::Embedded, &|name| {
            (name == "CARGA_JWT_JWKS").then(|| file.display().to_string())
        });
        let on = Authentication::On(None);
        let settings = settings.unwrap().access;
        let fault = JwtVerifier::start(&settings, &on).await.unwrap_err();
        let fault = fault.to_string();
        assert!(
            fault.contains("CARGA_JWT_JWKS=") && fault.contains("jwks.json"),
            "{fault}"
        );
    }
}
