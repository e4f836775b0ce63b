//! The versions of the servers in a set, as the servers themselves state them.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rabbit::PROTOCOL_HEADER;
use crate::services::State;

const TIMEOUT: Duration = Duration::from_secs(10);

/// For example `PostgreSQL 15.18, RabbitMQ 3.10.8, Redis 7.0.15`.
pub(crate) async fn describe(set: &State) -> Result<String> {
    let versions = async {
        let postgres = postgres(&set.database_url("postgres")).await?;
        let rabbit = read_until(set.rabbit_port, PROTOCOL_HEADER, rabbit_version).await?;
        let redis = read_until(set.redis_port, b"INFO server\r\n", redis_version).await?;
        Ok(format!(
            "PostgreSQL {postgres}, RabbitMQ {rabbit}, Redis {redis}"
        ))
    };
    tokio::time::timeout(TIMEOUT, versions)
        .await
        .context("a server does not state its version")?
}

async fn postgres(url: &str) -> Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let version: String = sqlx::query_scalar("show server_version")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    // Debian adds the version of its package.
    let number = version.split_ascii_whitespace().next();
    Ok(number.unwrap_or_default().to_owned())
}

/// The version in the frame `connection.start`: the field `version` of the server's properties,
/// which is a long string (`S`, its length in four bytes, its text).
fn rabbit_version(frame: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let field = frame.windows(FIELD.len()).position(|at| at == FIELD)?;
    let (length, text) = frame[field + FIELD.len()..].split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Some(String::from_utf8_lossy(text.get(..length)?).into_owned())
}

fn redis_version(answer: &[u8]) -> Option<String> {
    let answer = String::from_utf8_lossy(answer);
    let (_, rest) = answer.split_once("redis_version:")?;
    Some(rest.split_once("\r\n")?.0.to_owned())
}

/// Sends a request, and reads until the answer contains what `find` looks for.
async fn read_until(
    port: u16,
    request: &[u8],
    find: impl Fn(&[u8]) -> Option<String>,
) -> Result<String> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    connection.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        let read = connection.read_buf(&mut answer).await?;
        if let Some(version) = find(&answer) {
            return Ok(version);
        }
        ensure!(read > 0, "the server on port {port} states no version");
        if answer.len() > 1 << 20 {
            bail!("the answer of the server on port {port} has no version");
        }
    }
}
