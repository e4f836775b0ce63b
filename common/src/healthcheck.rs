//! Checks that a running server is alive. Container images without a shell have no curl, so each
//! program has its own check.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The time within which the server must answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The result of a failed health check.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The server cannot be reached.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// The address that was tried.
        address: SocketAddr,
        /// The network error.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("{0} did not answer within {seconds} s", seconds = TIMEOUT.as_secs())]
    Silent(SocketAddr),
    /// The server answered with a status other than 200.
    #[error("{address} answered: {answer}")]
    Refused {
        /// The address that was tried.
        address: SocketAddr,
        /// The answer as it was received.
        answer: String,
    },
}

/// Succeeds when the server that listens on `address` answers `GET /livez` with 200.
pub async fn check(mut address: SocketAddr) -> Result<(), Unhealthy> {
    // A server that listens on every address also listens on loopback.
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let Ok(answer) = tokio::time::timeout(TIMEOUT, livez(address)).await else {
        return Err(Unhealthy::Silent(address));
    };
    let answer = answer.map_err(|source| Unhealthy::Unreachable { address, source })?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(Unhealthy::Refused { address, answer }),
    }
}

async fn livez(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
