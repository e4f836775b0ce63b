//! Checks that a running server is alive. Container images without a shell have no curl, so each
//! program has its own check.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::local_server::{Encryption, LocalServer, Request, reachable, send};
use crate::settings::IntakeSettings;

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

/// Succeeds when the server with these settings answers `GET /livez` with 200.
///
/// The check sends no secret, so it accepts every certificate. A server that answers is healthy,
/// even if the file of its certificate was replaced or damaged after the server had read it.
pub async fn check(settings: &IntakeSettings) -> Result<(), Unhealthy> {
    let server = LocalServer {
        address: settings.listen,
        encryption: match settings.tls {
            Some(_) => Encryption::AnyCertificate,
            None => Encryption::None,
        },
    };
    let address = reachable(server.address);
    let request = Request {
        method: "GET",
        path: "/livez",
        key: None,
        json: None,
    };
    let answer = tokio::time::timeout(TIMEOUT, send(&server, request)).await;
    let answer = answer.map_err(|_| Unhealthy::Silent(address))?;
    let answer = answer.map_err(|source| Unhealthy::Unreachable { address, source })?;
    match answer.status.starts_with("200") {
        true => Ok(()),
        false => Err(Unhealthy::Refused {
            address,
            answer: format!("{} {}", answer.status, answer.body),
        }),
    }
}
