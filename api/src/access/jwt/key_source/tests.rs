use std::sync::atomic::{AtomicUsize, Ordering};

use carga_common::settings::SecretUrl;
use carga_intake::refusal::RefusalKind;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::*;

/// A server of one document, which a test changes, and how often it was read.
#[derive(Debug)]
struct Server {
    url: String,
    answer: Arc<Mutex<String>>,
    readings: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

/// A whole answer with a JWK set of keys with these ids.
fn answer(ids: &[&str]) -> String {
    let keys: Vec<_> = ids
        .iter()
        .map(|id| json!({ "kty": "RSA", "kid": id, "n": "sXchDaQebHnPiGvyDOAT4saGEUet", "e": "AQAB" }))
        .collect();
    with_body("200 OK", &json!({ "keys": keys }).to_string())
}

fn with_body(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: /other\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Server {
    async fn start(first: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(first));
        let readings = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (Arc::clone(&answer), Arc::clone(&readings));
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let text = lock(&served).clone();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            url,
            answer,
            readings,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn change(&self, answer: String) {
        *lock(&self.answer) = answer;
    }

    fn readings(&self) -> usize {
        self.readings.load(Ordering::SeqCst)
    }

    async fn source(&self) -> Arc<KeySource> {
        let url = JwtKeys::Url(SecretUrl::new(self.url.clone()));
        KeySource::open(&url, Validation::default()).await.unwrap()
    }
}

async fn has(source: &Arc<KeySource>, id: &str) -> bool {
    let found = source.keys(Some(id), Algorithm::RS256).await;
    !found.unwrap().is_empty()
}

#[tokio::test]
async fn a_new_key_is_found_and_a_removed_one_is_forgotten() {
    let server = Server::start(answer(&["a"])).await;
    let source = server.source().await;
    assert!(has(&source, "a").await);
    server.change(answer(&["a", "b"]));
    source.allow_reading().await;
    assert!(has(&source, "b").await && has(&source, "a").await);
    server.change(answer(&["b"]));
    source.read_again(Duration::ZERO).await;
    assert!(has(&source, "b").await && !has(&source, "a").await);
}

#[tokio::test]
async fn invented_key_ids_cause_one_reading_in_ten_seconds() {
    let server = Server::start(answer(&["a"])).await;
    let source = server.source().await;
    assert_eq!(server.readings(), 1);
    for number in 0..50 {
        assert!(!has(&source, &format!("x{number}")).await);
    }
    assert_eq!(server.readings(), 1);
    source.allow_reading().await;
    let invented = (0..50).map(|number| {
        let source = Arc::clone(&source);
        async move { has(&source, &format!("x{number}")).await }
    });
    let found = futures::future::join_all(invented).await;
    assert!(found.iter().all(|found| !found));
    assert_eq!(server.readings(), 2);
    // A known key with another algorithm is no reason to read.
    source.allow_reading().await;
    let other = source.keys(Some("a"), Algorithm::HS256).await.unwrap();
    assert!(other.is_empty());
    assert_eq!(server.readings(), 2);
}

#[tokio::test]
async fn wrong_signatures_cause_one_reading_in_ten_seconds() {
    let server = Server::start(answer(&["a"])).await;
    let source = server.source().await;
    assert!(!source.read_after_unknown().await.unwrap());
    assert_eq!(server.readings(), 1);
    source.allow_reading().await;
    assert!(source.read_after_unknown().await.unwrap());
    assert!(!source.read_after_unknown().await.unwrap());
    assert_eq!(server.readings(), 2);
    // A reading that fails replaces nothing.
    server.change(with_body("200 OK", "{}"));
    source.allow_reading().await;
    assert!(!source.read_after_unknown().await.unwrap());
    assert_eq!(server.readings(), 3);
}

#[tokio::test]
async fn a_reading_goes_on_although_its_client_is_gone() {
    let server = Server::start(answer(&["a"])).await;
    let source = server.source().await;
    server.change(answer(&["b"]));
    for _ in 0..5 {
        source.allow_reading().await;
        let gone = timeout(Duration::ZERO, has(&source, "b")).await;
        drop(gone);
    }
    // Each reading holds the lock to its end, so this one waits for those that clients left.
    source.read_again(UNKNOWN_PAUSE).await;
    assert!(has(&source, "b").await);
}

#[tokio::test]
async fn a_failed_reading_keeps_the_previous_keys_and_is_repeated_soon() {
    let server = Server::start(answer(&["a"])).await;
    let source = server.source().await;
    let large = format!(r#"{{ "keys": [], "x": "{}" }}"#, "x".repeat(MAX_BYTES));
    for faulty in [
        with_body("500 Internal Server Error", "{}"),
        with_body("302 Found", ""),
        with_body("200 OK", "[]"),
        with_body("200 OK", r#"{ "keys": [] }"#),
        with_body("200 OK", &large),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned(),
        "no HTTP".to_owned(),
    ] {
        server.change(faulty);
        assert!(source.read().await.is_err());
        source.read_again(Duration::ZERO).await;
        assert!(has(&source, "a").await);
        assert_eq!(source.pause(), PAUSE_AFTER_FAILURE);
    }
    server.change(answer(&["a"]));
    source.read_again(Duration::ZERO).await;
    assert_eq!(source.pause(), PAUSE);
}

/// The failed reading was caused by a forged JWT, long before the next regular one.
#[tokio::test(start_paused = true)]
async fn a_failed_reading_between_the_regular_ones_is_repeated_after_half_a_minute() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("jwks.json");
    let publish = |text: &str| {
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        std::fs::write(&file, body).unwrap();
    };
    publish(&answer(&["a"]));
    let location = JwtKeys::File(file.clone());
    let source = KeySource::open(&location, Validation::default()).await;
    let source = source.unwrap();
    let _refreshing = source.refresh();
    sleep(UNKNOWN_PAUSE).await;
    publish(&with_body("200 OK", "[]"));
    assert!(!source.read_after_unknown().await.unwrap());
    publish(&answer(&["a", "b"]));
    let knows = || source.current().unwrap().knows("b");
    sleep(PAUSE_AFTER_FAILURE - Duration::from_secs(1)).await;
    assert!(!knows());
    sleep(Duration::from_secs(2)).await;
    assert!(knows());
}

#[tokio::test]
async fn a_limited_number_of_requests_waits_for_a_reading() {
    let server = Server::start(answer(&["a"])).await;
    let source = server.source().await;
    let running = Arc::clone(&source.last).lock_owned().await;
    let waiting = (0..MAX_WAITING).map(|_| source.read_after_unknown());
    let mut waiting: Vec<_> = waiting.map(Box::pin).collect();
    for request in &mut waiting {
        assert!(futures::poll!(request.as_mut()).is_pending());
    }
    let further = source.read_after_unknown().await.unwrap_err();
    assert_eq!(further.failure.code, "key_check_busy");
    let further = source.keys(Some("x"), Algorithm::RS256).await.unwrap_err();
    assert_eq!(further.failure.code, "key_check_busy");
    // A known key needs no reading.
    assert!(has(&source, "a").await);
    drop(running);
    let ended = futures::future::join_all(waiting).await;
    assert!(ended.iter().all(Result::is_ok));
    assert!(!source.read_after_unknown().await.unwrap());
}

#[tokio::test]
async fn a_jwt_is_unavailable_until_the_keys_were_read() {
    let server = Server::start(with_body("503 Service Unavailable", "")).await;
    let source = server.source().await;
    let refusal = source.keys(Some("a"), Algorithm::RS256).await.unwrap_err();
    assert_eq!(source.pause(), PAUSE_WITHOUT_KEYS);
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert_eq!(refusal.failure.code, "dependency_unavailable");
    server.change(answer(&["a"]));
    source.read_again(Duration::ZERO).await;
    assert!(has(&source, "a").await);
}

#[tokio::test]
async fn a_url_without_a_host_is_a_fault() {
    for url in ["http:///jwks", "https://[::1/jwks"] {
        let url = JwtKeys::Url(SecretUrl::new(url.to_owned()));
        let fault = KeySource::open(&url, Validation::default()).await;
        assert!(fault.unwrap_err().to_string().contains("CARGA_JWT_JWKS="));
    }
}
