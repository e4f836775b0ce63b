//! For whom tokens, JWTs and preflight requests count.

use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use carga_common::access::{TokenId, TokenLimits};
use carga_common::tenant::Tenant;
use jiff::Timestamp;

use super::*;
use crate::caller::Credential;

/// The names of the buckets of a request of this caller.
fn buckets(limiter: &Limiter, caller: &Caller) -> Vec<String> {
    let applied = limiter.applied(ONE.parse().unwrap(), Some(caller));
    let buckets = applied.buckets.into_iter();
    buckets.map(|bucket| bucket.name).collect()
}

fn holding(credential: Credential, key: Option<&str>) -> Caller {
    Caller {
        key: key.map(|id| id.parse().unwrap()),
        credential,
        ..Caller::unlimited()
    }
}

fn token(maker: &str) -> Credential {
    let id = TokenId::generate().unwrap();
    Credential::Token {
        sender: format!("{maker}.{id}"),
        limits: TokenLimits {
            id,
            expires_at: Timestamp::MAX,
            max_uploads: None,
            max_bytes: None,
        },
    }
}

#[test]
fn a_token_counts_for_the_key_that_made_it() {
    let limiter = limits(&[]).0.unwrap();
    for (key, maker) in [(Some(KEY), KEY), (None, "admin")] {
        let of_key = buckets(&limiter, &holding(Credential::Key, key));
        let of_maker = format!("key:{maker}");
        assert_eq!(of_key[1], format!("key:{of_maker}"));
        assert_eq!(of_key[2], format!("burst:{of_maker}"));
        for _ in 0..2 {
            assert_eq!(buckets(&limiter, &holding(token(maker), key)), of_key);
        }
    }
}

#[test]
fn a_jwt_counts_for_its_sender_in_its_tenant() {
    let limiter = limits(&[]).0.unwrap();
    let jwt = |sender: Option<&str>, tenant: &str| {
        let sender = sender.map(str::to_owned);
        let caller = holding(Credential::Jwt { sender }, None);
        let tenant: Tenant = tenant.parse().unwrap();
        buckets(&limiter, &Caller { tenant, ..caller })[1].clone()
    };
    let alice = jwt(Some("jwt:alice"), "acme");
    assert_eq!(alice, "key:jwt:alice@acme");
    let others = [
        jwt(Some("jwt:bob"), "acme"),
        jwt(Some("jwt:alice"), "globex"),
        jwt(None, "acme"),
        jwt(None, "globex"),
        buckets(&limiter, &holding(Credential::Key, None))[1].clone(),
    ];
    for (index, other) in others.iter().enumerate() {
        assert!(
            *other != alice && !others[..index].contains(other),
            "{other}"
        );
    }
}

#[tokio::test]
async fn a_preflight_request_counts_for_its_address_and_not_in_its_second() {
    let limits = limits(&[("CARGA_LIMIT_ADDRESS", "20"), ("CARGA_LIMIT_BURST", "1")]);
    let preflight = async |_: Request, _: Next| {
        let mut permission = StatusCode::NO_CONTENT.into_response();
        permission.extensions_mut().insert(CountsForAddressOnly);
        permission
    };
    let router = Router::new()
        .route("/", any(async || "ok"))
        .layer(from_fn(preflight))
        .layer(from_fn_with_state(limits, refused_layer));
    for expected in [[204; 20].as_slice(), &[429]].concat() {
        let answer = answer(&router, ONE, None, Body::empty()).await;
        assert_eq!(answer.status(), expected);
        let policy = &answer.headers()["ratelimit-policy"];
        assert_eq!(policy, "\"address\";q=20;w=60");
    }
    assert_eq!(status(&router, OTHER, None).await, 204);
}
