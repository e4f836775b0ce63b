//! The HTTP client of the exporter. It uses the TLS of the other clients, and reports outages.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::sync::lock;

/// The time limit of one request: the default of OTLP.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The pause between two warnings of one outage.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

type Connections = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends requests to the collector.
#[derive(Debug)]
pub(super) struct Client {
    connections: Connections,
    /// The SDK sends from a thread of its own, which has no runtime.
    runtime: Handle,
    /// For the log, without a password.
    endpoint: String,
    outage: Mutex<Outage>,
}

/// Since when the collector is away.
#[derive(Debug, Default)]
struct Outage {
    last_warning: Option<Instant>,
}

impl Client {
    /// A client in the current Tokio runtime. Fails if the collector has TLS and the system has no
    /// certificates.
    pub(super) fn new(endpoint: String) -> Result<Self, String> {
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(endpoint.starts_with("https:"))?)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            connections: legacy::Client::builder(TokioExecutor::new()).build(connector),
            runtime,
            endpoint,
            outage: Mutex::default(),
        })
    }

    /// Reports the first failure, one failure per minute after it, and the end of the outage.
    fn note(&self, failure: Option<String>) {
        let endpoint = &self.endpoint;
        let mut outage = lock(&self.outage);
        let Some(reason) = failure else {
            if outage.last_warning.take().is_some() {
                tracing::info!(endpoint, "the collector takes spans again");
            }
            return;
        };
        let now = Instant::now();
        let is_due = |last: Instant| now.duration_since(last) >= WARNING_PAUSE;
        if outage.last_warning.is_none_or(is_due) {
            outage.last_warning = Some(now);
            tracing::warn!(
                endpoint,
                reason,
                "spans cannot be sent and are lost (OTEL_EXPORTER_OTLP_ENDPOINT); uploads go on"
            );
        }
    }
}

/// Trusts the authorities of the system. They are read only if they are needed, because an image of
/// a container may have none.
fn tls_config(has_tls: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match has_tls {
        true => config
            .with_native_roots()
            .map_err(|error| format!("cannot read the authorities of the system: {error}"))?,
        false => config.with_root_certificates(RootCertStore::empty()),
    };
    Ok(config.with_no_client_auth())
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = exchange(self.connections.clone(), request);
        // The time limit needs the runtime, too.
        let exchange = async { timeout(REQUEST_TIMEOUT, exchange).await };
        let answer = match self.runtime.spawn(exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(late)) => Err(late.into()),
            Err(stopped) => Err(stopped.into()),
        };
        self.note(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            Err(error) => Some(causes(error.as_ref())),
        });
        answer
    }
}

async fn exchange(
    connections: Connections,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let answer = connections.request(request.map(Full::new)).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// An error with its causes on one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
