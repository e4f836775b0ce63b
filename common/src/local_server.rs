//! Requests to a server of Carga that runs on this machine. They have no body and a short answer,
//! so they need no HTTP library.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    /// The status code and its reason.
    pub status: String,
    /// The body.
    pub body: String,
}

/// Sends a request without a body to the server that listens on `address`.
pub async fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<Answer> {
    let address = reachable(address);
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    Ok(Answer {
        status: status.trim_start_matches("HTTP/1.1 ").to_owned(),
        body: body.to_owned(),
    })
}

/// The address to connect to. A server that listens on every address also listens on loopback.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
