//! Requests that repeat earlier ones with their `Idempotency-Key`.

use super::*;

/// The answer to a `POST /keys` with this `Idempotency-Key`.
async fn post(router: &Router, idempotency_key: &str) -> Response {
    let request = Request::builder().method("POST").uri("/keys");
    let request = request.header("x-api-key", KEY);
    let request = request.header("idempotency-key", idempotency_key);
    send(router, ONE, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_limit_of_a_key_does_not_refuse_a_repeated_request() {
    let settings = [("CARGA_LIMIT_KEY", "2"), ("CARGA_LIMIT_ADDRESS", "9"), OFF];
    let router = router(limits(&settings));
    let mut statuses = Vec::new();
    for key in ["new", "held", "held", "new", "held"] {
        statuses.push(post(&router, key).await.status().as_u16());
    }
    // The first two count for the key.
    assert_eq!(statuses, [200, 200, 200, 429, 200]);
    let refused = post(&router, "new").await;
    let policy = "\"address\";q=9;w=60, \"key\";q=2;w=60";
    assert_eq!(refused.headers()["ratelimit-policy"], policy);
    assert!(refused.headers().contains_key("retry-after"));
    let repeated = post(&router, "held").await;
    assert_eq!(
        repeated.headers()["ratelimit-policy"],
        "\"address\";q=9;w=60"
    );
    // A route that takes no such key ignores it.
    let request = Request::builder().method("POST").uri("/");
    let request = request.header("x-api-key", KEY);
    let request = request.header("idempotency-key", "held");
    let request = request.body(Body::empty()).unwrap();
    assert_eq!(send(&router, OTHER, request).await.status(), 429);
    // Seven requests have counted for the address, also the refused ones.
    assert_eq!(post(&router, "held").await.status(), 200);
    assert_eq!(post(&router, "held").await.status(), 200);
    // If the address refuses, too, nothing is taken, and the refusal shows all limits.
    let refused = post(&router, "held").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["ratelimit-policy"], policy);
}

#[tokio::test]
async fn the_store_is_asked_only_over_the_limit_of_the_key_and_within_the_others() {
    let settings = [("CARGA_LIMIT_KEY", "2"), ("CARGA_LIMIT_ADDRESS", "5"), OFF];
    let store = Arc::<Held>::default();
    let router = router(limits_of("on", &settings, Arc::clone(&store)));
    let mut asked = Vec::new();
    for key in ["new", "held", "new", "held", "new", "new", "held", "new"] {
        post(&router, key).await;
        asked.push(store.0.load(Ordering::Relaxed));
    }
    assert_eq!(asked, [0, 0, 1, 2, 3, 3, 3, 3]);
}
