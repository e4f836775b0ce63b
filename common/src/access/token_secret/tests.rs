use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::access::ApiKey;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn secret() -> TokenSecret {
    TokenSecret::generate().unwrap()
}

fn token() -> Token {
    Token {
        maker: TokenMaker::Key(ApiKey::generate().unwrap().id().clone()),
        tenant: "acme".parse().unwrap(),
        scopes: "upload read".parse().unwrap(),
        dataset: None,
        issued_at: NOW,
        limits: TokenLimits {
            id: TokenId::generate().unwrap(),
            expires_at: NOW + SignedDuration::from_secs(900),
            max_uploads: None,
            max_bytes: None,
        },
    }
}

/// A token with every field, and with names of the greatest length.
fn full_token(secret: &TokenSecret) -> Token {
    let mut token = token();
    token.maker = TokenMaker::Admin(secret.admin_mark(&KeyDigest::of("x")));
    token.tenant = "t".repeat(48).parse().unwrap();
    token.scopes = "admin manage read upload".parse().unwrap();
    token.dataset = Some("\"".repeat(50).parse().unwrap());
    token.limits.max_uploads = Some(u64::MAX);
    token.limits.max_bytes = Some(u64::MAX);
    token
}

/// A text with these claims and a valid signature.
fn with_claims(secret: &TokenSecret, claims: &serde_json::Value) -> String {
    let text = HEADER.to_owned() + &BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    let signature = secret.mac(&[text.as_bytes()]).finalize().into_bytes();
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn claims_of(token: &Token) -> serde_json::Value {
    serde_json::to_value(Claims::of(token)).unwrap()
}

#[test]
fn a_token_is_read_back_with_every_field() {
    let secret = secret();
    for token in [token(), full_token(&secret)] {
        let signed = secret.sign(&token).unwrap();
        assert!(is_token(signed.expose()));
        assert!(signed.expose().len() < MAX_BYTES / 2);
        assert_eq!(secret.verify(signed.expose(), NOW), Ok(token));
    }
}

#[test]
fn the_header_is_fixed() {
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"carga+jwt"}"#);
    assert_eq!(HEADER, format!("{header}."));
    let secret = secret();
    let signed = secret.sign(&token()).unwrap();
    let (_, claims) = signed.expose().split_once('.').unwrap();
    let (claims, _) = claims.split_once('.').unwrap();
    for header in [
        r#"{"alg":"none","typ":"carga+jwt"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"typ":"carga+jwt","alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"carga+jwt","kid":"x"}"#,
    ] {
        let text = format!("{}.{claims}", BASE64_URL_SAFE_NO_PAD.encode(header));
        let signature = secret.mac(&[text.as_bytes()]).finalize().into_bytes();
        for signature in ["", &BASE64_URL_SAFE_NO_PAD.encode(signature)] {
            let fault = secret.verify(&format!("{text}.{signature}"), NOW);
            assert_eq!(fault, Err(TokenFault::NotAToken), "{header}");
        }
    }
}

#[test]
fn a_token_of_another_secret_or_with_other_claims_is_refused() {
    let (secret, other) = (secret(), secret());
    let signed = other.sign(&token()).unwrap();
    let fault = secret.verify(signed.expose(), NOW);
    assert_eq!(fault, Err(TokenFault::WrongSignature));
    let signed = secret.sign(&token()).unwrap();
    let (_, signature) = signed.expose().rsplit_once('.').unwrap();
    let mut more = token();
    more.scopes = "admin".parse().unwrap();
    let more = secret.sign(&more).unwrap();
    let (claims, _) = more.expose().rsplit_once('.').unwrap();
    let fault = secret.verify(&format!("{claims}.{signature}"), NOW);
    assert_eq!(fault, Err(TokenFault::WrongSignature));
}

#[test]
fn a_token_ends_at_its_time() {
    let secret = secret();
    let token = token();
    let signed = secret.sign(&token).unwrap();
    let end = token.limits.expires_at;
    let last = end - SignedDuration::from_millis(1);
    assert!(secret.verify(signed.expose(), last).is_ok());
    let fault = secret.verify(signed.expose(), end);
    assert_eq!(fault, Err(TokenFault::Expired));
}

#[test]
fn signed_claims_that_no_token_has_are_refused() {
    let secret = secret();
    let claims = claims_of(&token());
    assert!(secret.verify(&with_claims(&secret, &claims), NOW).is_ok());
    let admin = BASE64_URL_SAFE_NO_PAD.encode([0; 16]);
    for (name, value) in [
        ("iss", "other".into()),
        ("jti", "x".into()),
        ("sub", "x".into()),
        ("sub", serde_json::Value::Null),
        ("admin", admin.into()),
        ("tenant", "A".into()),
        ("scope", "".into()),
        ("scope", "root".into()),
        ("dataset", "a/b".into()),
        ("exp", "soon".into()),
        // A limit of a newer build.
        ("max_rows", 5.into()),
    ] {
        let mut changed = claims.clone();
        changed[name] = value;
        let fault = secret.verify(&with_claims(&secret, &changed), NOW);
        assert_eq!(fault, Err(TokenFault::UnknownClaims), "{changed}");
    }
}

#[test]
fn the_mark_of_an_admin_key_depends_on_the_key_and_on_the_secret() {
    let (one, other) = (KeyDigest::of("one"), KeyDigest::of("other"));
    let secret = secret();
    assert_eq!(secret.admin_mark(&one), secret.admin_mark(&one));
    assert_ne!(secret.admin_mark(&one), secret.admin_mark(&other));
    let another = TokenSecret::generate().unwrap();
    assert_ne!(secret.admin_mark(&one), another.admin_mark(&one));
}

#[test]
fn neither_a_secret_nor_a_token_is_shown() {
    let secret = TokenSecret::from([0x41; 32]);
    let signed = secret.sign(&token()).unwrap();
    assert_eq!(format!("{secret:?}"), "TokenSecret(***)");
    assert_eq!(format!("{signed:?}"), "SignedToken(***)");
}

#[test]
fn the_sender_names_the_key_and_the_token() {
    let token = token();
    let TokenMaker::Key(key) = &token.maker else {
        panic!("no key");
    };
    assert_eq!(token.sender(), format!("{key}.{}", token.limits.id));
    let full = full_token(&secret());
    assert_eq!(full.sender(), format!("admin.{}", full.limits.id));
}

proptest! {
    #[test]
    fn a_token_with_one_changed_character_is_refused(
        position in any::<prop::sample::Index>(),
        character in any::<char>(),
    ) {
        let secret = TokenSecret::from([7; 32]);
        let signed = secret.sign(&token()).unwrap();
        let mut characters: Vec<char> = signed.expose().chars().collect();
        let position = position.index(characters.len());
        for other in ['A', 'B', '.', '=', character] {
            if characters[position] == other {
                continue;
            }
            let original = std::mem::replace(&mut characters[position], other);
            let changed: String = characters.iter().collect();
            prop_assert!(secret.verify(&changed, NOW).is_err(), "{}", changed);
            characters[position] = original;
        }
    }

    #[test]
    fn no_text_makes_the_check_panic(text in any::<String>()) {
        let secret = TokenSecret::from([7; 32]);
        prop_assert!(secret.verify(&text, NOW).is_err());
        let text = format!("{HEADER}{text}");
        prop_assert!(secret.verify(&text, NOW).is_err());
    }
}
