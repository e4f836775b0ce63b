//! TLS in a build without it: the same items as in a build with it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::TlsError;
use crate::settings::TlsSettings;

/// The server's side of TLS, which this build does not have. No value of this type exists.
#[derive(Debug, Clone)]
pub enum TlsServer {}

impl TlsServer {
    /// Answers that this build has no TLS.
    pub fn load(_: &TlsSettings) -> Result<Self, TlsError> {
        Err(TlsError::NotBuilt)
    }

    /// Reloads the certificate on SIGHUP.
    pub fn reload_on_hangup(&self) -> Result<(), TlsError> {
        match *self {}
    }

    /// Performs the handshake with a client.
    pub async fn accept(&self, _: TcpStream, _: Duration) -> io::Result<TcpStream> {
        match *self {}
    }
}

/// Answers that this build has no TLS.
pub(crate) async fn connect(_: SocketAddr, _: Option<&Path>) -> io::Result<TcpStream> {
    Err(TlsError::NotBuilt.into())
}
