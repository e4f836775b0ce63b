//! How connections are carried: over TCP alone, or with TLS.

use carga_common::settings::IntakeSettings;
use carga_common::tls::{TlsError, TlsServer};

/// Whether the server encrypts its connections.
#[derive(Debug, Clone)]
pub enum Transport {
    /// HTTP without TLS.
    Plain,
    /// HTTP over TLS.
    Tls(TlsServer),
}

impl Transport {
    /// Reads the certificate of the settings, if they name one. From then on, SIGHUP reloads it.
    /// Must be called in the async runtime.
    pub fn open(settings: &IntakeSettings) -> Result<Self, TlsError> {
        let Some(files) = &settings.tls else {
            return Ok(Self::Plain);
        };
        let server = TlsServer::load(files)?;
        server.reload_on_hangup()?;
        Ok(Self::Tls(server))
    }

    /// The scheme of the server's URL.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls(_) => "https",
        }
    }
}
