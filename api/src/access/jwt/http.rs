//! Reads a small document from a URL.

use std::sync::Arc;

use bytes::Bytes;
use carga_common::settings::SecretUrl;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};

/// A URL and the means to read it. A person who can change the keys can sign JWTs with any scope,
/// so only the server that the setting names may serve them, and no redirect is followed.
#[derive(Debug)]
pub(super) struct Document {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    uri: Uri,
}

impl Document {
    /// The reason is about the setting.
    pub(super) fn new(url: &SecretUrl) -> Result<Self, String> {
        let uri: Uri = url.expose().parse().map_err(|_| "not a URL".to_owned())?;
        if uri.host().is_none_or(str::is_empty) {
            return Err("the URL names no host".to_owned());
        }
        let is_https = uri.scheme_str() == Some("https");
        let tls = tls(is_https)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = connector.https_or_http().enable_http1().build();
        // Minutes pass between two requests, so no connection is kept.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client, uri })
    }

    /// The document, if it has at most this many bytes.
    pub(super) async fn read(&self, most: usize) -> Result<Bytes, String> {
        let answer = self.client.get(self.uri.clone()).await;
        let answer = answer.map_err(|error| with_causes(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                return Err(format!(
                    "the server answered {status}; redirects are not followed, so set the URL of the document itself"
                ));
            }
            status => return Err(format!("the server answered {status}")),
        }
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body = body.map_err(
            |error| match error.is::<http_body_util::LengthLimitError>() {
                true => format!("it has more than {most} bytes"),
                false => with_causes(error.as_ref()),
            },
        )?;
        Ok(body.to_bytes())
    }
}

/// Trusts the authorities of the system, as for the servers (`SSL_CERT_FILE`).
fn tls(is_https: bool) -> Result<ClientConfig, String> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    if !is_https {
        let none = builder.with_root_certificates(RootCertStore::empty());
        return Ok(none.with_no_client_auth());
    }
    let builder = hyper_rustls::ConfigBuilderExt::with_native_roots(builder);
    let builder = builder.map_err(|error| format!("no authorities to trust: {error}"))?;
    Ok(builder.with_no_client_auth())
}

/// The error with its causes, because the first one says little.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
