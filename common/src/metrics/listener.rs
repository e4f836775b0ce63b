//! A listener that answers scrapes and nothing else (`CARGA_METRICS_LISTEN`).
//!
//! A worker has no HTTP server, and a scrape needs little of one: the path, and an answer with a
//! length. Every connection carries one request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::exposition::{Exposition, MEDIA_TYPE};
use crate::settings::Settings;

/// The most connections at the same time. A scraper needs one.
const MAX_CONNECTIONS: usize = 16;

/// The time for one request and its answer, so that a silent client frees its connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest head of a request.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// The pause after a connection could not be accepted, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (CARGA_METRICS_LISTEN)")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// A running listener. Dropping it closes its address and its connections.
#[derive(Debug)]
pub struct MetricsListener {
    _serving: AbortOnDropHandle<()>,
}

/// Serves `/metrics` on the address in the settings; `None` if there is none.
pub async fn listen(
    settings: &Settings,
    exposition: &Exposition,
) -> Result<Option<MetricsListener>, ListenError> {
    let Some(address) = settings.metrics_listen else {
        return Ok(None);
    };
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    let (listener, address) = bound
        .await
        .map_err(|source| ListenError { address, source })?;
    tracing::info!("metrics are on http://{address}/metrics");
    let serving = tokio::spawn(serve(listener, exposition.clone()));
    Ok(Some(MetricsListener {
        _serving: AbortOnDropHandle::new(serving),
    }))
}

/// Answers requests until it is dropped, and its connections with it.
async fn serve(listener: TcpListener, exposition: Exposition) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let exposition = exposition.clone();
                connections.spawn(async move {
                    let _place = place;
                    // A client that disconnects needs no answer.
                    let _ =
                        tokio::time::timeout(REQUEST_TIMEOUT, answer(stream, &exposition)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, exposition: &Exposition) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    let answer = match Request::parse(&head) {
        Request::Scrape { has_body } => {
            let text = exposition.render().await;
            scraped(&text, has_body)
        }
        Request::OtherMethod => refused("405 Method Not Allowed", "allow: GET, HEAD\r\n"),
        Request::OtherPath => refused("404 Not Found", ""),
        Request::Invalid => refused("400 Bad Request", ""),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads up to the empty line that ends the head. A head that is longer or incomplete is cut, and
/// so is not valid.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    let mut limited = stream.take(MAX_HEAD_BYTES as u64);
    while !is_complete(&head) && limited.read_buf(&mut head).await? > 0 {}
    Ok(head)
}

fn is_complete(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n")
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Scrape { has_body: bool },
    OtherMethod,
    OtherPath,
    Invalid,
}

impl Request {
    fn parse(head: &[u8]) -> Self {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::Invalid;
        };
        if !is_complete(head) || !version.starts_with("HTTP/1.") {
            return Self::Invalid;
        }
        let path = target.split('?').next().unwrap_or_default();
        match (path, method) {
            ("/metrics", "GET") => Self::Scrape { has_body: true },
            ("/metrics", "HEAD") => Self::Scrape { has_body: false },
            ("/metrics", _) => Self::OtherMethod,
            _ => Self::OtherPath,
        }
    }
}

fn scraped(text: &str, has_body: bool) -> String {
    let length = text.len();
    let body = if has_body { text } else { "" };
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {MEDIA_TYPE}\r\ncache-control: no-store\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn refused(status: &str, headers: &str) -> String {
    let body = "this listener has GET /metrics only\n";
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_request_for_the_metrics_is_a_scrape() {
        let scrape = |has_body| Request::Scrape { has_body };
        for (head, expected) in [
            ("GET /metrics HTTP/1.1\r\nhost: w\r\n\r\n", scrape(true)),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", scrape(true)),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", scrape(false)),
            ("POST /metrics HTTP/1.1\r\n\r\n", Request::OtherMethod),
            ("GET / HTTP/1.1\r\n\r\n", Request::OtherPath),
            ("GET /metricsx HTTP/1.1\r\n\r\n", Request::OtherPath),
            ("GET /metrics HTTP/1.1\r\nhost: w\r\n", Request::Invalid),
            ("GET /metrics\r\n\r\n", Request::Invalid),
            ("GET /metrics HTTP/2\r\n\r\n", Request::Invalid),
            ("\u{16}\u{3}\u{1}", Request::Invalid),
            ("", Request::Invalid),
        ] {
            assert_eq!(Request::parse(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn the_answer_to_a_head_request_has_the_length_and_no_body() {
        let (with_body, without) = (scraped("a 1\n", true), scraped("a 1\n", false));
        assert!(with_body.ends_with("\r\ncontent-length: 4\r\nconnection: close\r\n\r\na 1\n"));
        assert_eq!(format!("{without}a 1\n"), with_body);
        assert!(without.contains("cache-control: no-store\r\n"));
        assert!(without.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    }
}
