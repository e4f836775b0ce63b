//! Requests to a server of Carga that runs on this machine. Bodies and answers are short, so they
//! need no HTTP library.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::settings::AdminKey;
use crate::tls;

/// A server of Carga on this machine.
#[derive(Debug, Clone)]
pub struct LocalServer {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// Whether it encrypts its port.
    pub encryption: Encryption,
}

/// Whether a server encrypts its port, and which server a command trusts.
#[derive(Debug, Clone)]
pub enum Encryption {
    /// HTTP without TLS.
    None,
    /// TLS. The server must have the first certificate in this file (`CARGA_TLS_CERT`).
    Certificate(PathBuf),
    /// TLS with any certificate. Only for requests without a secret.
    AnyCertificate,
}

/// A connection to a server.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Connects to a server, with TLS if it encrypts its port.
pub async fn connect(server: &LocalServer) -> io::Result<Box<dyn Connection>> {
    let address = reachable(server.address);
    Ok(match &server.encryption {
        Encryption::None => Box::new(TcpStream::connect(address).await?),
        Encryption::Certificate(file) => Box::new(tls::connect(address, Some(file)).await?),
        Encryption::AnyCertificate => Box::new(tls::connect(address, None).await?),
    })
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    /// The status code and its reason.
    pub status: String,
    /// The body.
    pub body: String,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path and the query.
    pub path: &'a str,
    /// The key of the request, if the server may require one.
    pub key: Option<&'a AdminKey>,
    /// A JSON document as the body.
    pub json: Option<&'a [u8]>,
}

/// The header line with the key, ending in CRLF. Without a key it is empty.
pub fn key_line(key: Option<&AdminKey>) -> String {
    key.map_or_else(String::new, |key| {
        format!("x-api-key: {}\r\n", key.expose())
    })
}

/// Sends a request to a server.
pub async fn send(server: &LocalServer, request: Request<'_>) -> io::Result<Answer> {
    let Request {
        method,
        path,
        key,
        json,
    } = request;
    let address = reachable(server.address);
    let mut stream = connect(server).await?;
    let content_type = match json {
        Some(_) => "content-type: application/json\r\n",
        None => "",
    };
    let body = json.unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{}{content_type}content-length: {}\r\nconnection: close\r\n\r\n",
        key_line(key),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    Ok(Answer {
        status: status.trim_start_matches("HTTP/1.1 ").to_owned(),
        body: body.to_owned(),
    })
}

/// A text as one segment of a path: every byte but those of letters, digits and `-._~` in ASCII
/// is escaped (RFC 3986, 2.3).
pub fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                segment.push(byte.into());
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_a_path_has_no_other_characters_than_unreserved_ones() {
        assert_eq!(path_segment("sales-2024_v1.0~"), "sales-2024_v1.0~");
        assert_eq!(path_segment("a/b?c=%20 é"), "a%2Fb%3Fc%3D%2520%20%C3%A9");
    }
}
