//! The server's side of TLS.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::server::TlsStream;

use super::validity::{self, Validity};
use super::{TlsError, certificate};
use crate::settings::TlsSettings;
use crate::sync::lock;

/// How many handshakes run at the same time. The others wait, so that a flood of connections takes
/// a bounded amount of memory. A client that holds a permit without answering loses it after its
/// time limit, so the bound must be too high for a few such clients to take all permits.
pub(super) const MAX_HANDSHAKES: usize = 512;

/// Accepts TLS 1.2 and 1.3 with the certificate of the settings. Cheap to clone.
#[derive(Clone)]
pub struct TlsServer {
    acceptor: TlsAcceptor,
    /// One permit for each handshake that may run.
    handshakes: Arc<Semaphore>,
    current: Arc<Current>,
}

impl TlsServer {
    /// Reads the certificate and its key, and logs until when the certificate is valid.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = Arc::new(Current {
            certificate: Mutex::new(Arc::new(certificate::load(settings, &provider)?)),
            settings: settings.clone(),
        });
        current.log_end();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setup(error.into()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as _);
        // The server has no HTTP/2. A client that offers only HTTP/2 is refused in the handshake.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            current,
        })
    }

    /// From now on, SIGHUP does not end the process but makes it read both files again. New
    /// connections get the new certificate, and open ones go on. If the files cannot be used, the
    /// current certificate stays, and the log has the reason.
    pub fn reload_on_hangup(&self) -> Result<(), TlsError> {
        let mut hangups = signal(SignalKind::hangup()).map_err(TlsError::Signal)?;
        let current = Arc::clone(&self.current);
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                let current = Arc::clone(&current);
                // Reading a file may block.
                let reloaded = tokio::task::spawn_blocking(move || current.reload()).await;
                if let Err(error) = reloaded {
                    tracing::error!(%error, "reloading the TLS certificate has failed");
                }
            }
        });
        Ok(())
    }

    /// Performs the handshake with a client, when fewer than `MAX_HANDSHAKES` others run. Without
    /// a limit, a client could hold a connection for ever. The limit includes the wait.
    pub async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> io::Result<TlsStream<TcpStream>> {
        let handshake = async {
            // A client that sends nothing holds no permit.
            stream.peek(&mut [0]).await?;
            let permit = self.handshakes.acquire().await;
            let _permit = permit.map_err(io::Error::other)?;
            self.acceptor.accept(stream).await
        };
        timeout(limit, handshake).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            let message = format!("the TLS handshake with the client did not end in {seconds} s");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// The certificate that new connections get.
struct Current {
    settings: TlsSettings,
    certificate: Mutex<Arc<CertifiedKey>>,
}

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&lock(&self.certificate))
    }

    fn reload(&self) {
        match certificate::load(&self.settings, &aws_lc_rs::default_provider()) {
            Ok(certificate) => {
                *lock(&self.certificate) = Arc::new(certificate);
                tracing::info!("reloaded the TLS certificate");
                self.log_end();
            }
            Err(error) => tracing::error!(
                error = error.chain(),
                "cannot reload the TLS certificate, so the server keeps the current one; correct the file and send SIGHUP again"
            ),
        }
    }

    /// Logs until when the certificate is valid.
    fn log_end(&self) {
        let current = self.get();
        let Some(end) = current.cert.first().and_then(|first| validity::end(first)) else {
            return;
        };
        let file = self.settings.certificate.display();
        match Validity::of(end, Timestamp::now()) {
            Validity::Long => tracing::info!(%end, %file, "TLS is on"),
            Validity::Soon => tracing::warn!(
                %end,
                %file,
                "TLS is on, and the certificate ends soon; replace the files (CARGA_TLS_CERT, CARGA_TLS_KEY) and send SIGHUP"
            ),
            Validity::Over => tracing::warn!(
                %end,
                %file,
                "TLS is on, and the certificate is no longer valid, so clients refuse it; replace the files (CARGA_TLS_CERT, CARGA_TLS_KEY) and send SIGHUP"
            ),
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl fmt::Debug for Current {
    // Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
