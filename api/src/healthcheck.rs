//! `carga-api healthcheck`: a health check for images without a shell and curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds when the API that listens on `address` answers `/livez`.
pub(crate) async fn check(mut address: SocketAddr) -> anyhow::Result<()> {
    // An API that listens on all addresses is asked on the loopback address.
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let answer = tokio::time::timeout(TIMEOUT, livez(address))
        .await
        .with_context(|| format!("{address} did not answer in time"))??;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "expected HTTP 200 from {address}, found: {answer}"
    );
    Ok(())
}

async fn livez(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    let request = format!("GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
