//! Requests of commands to the `carga serve` that uses the data directory.

use std::future::pending;
use std::io;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use carga_common::local_server::{
    self, Answer, Encryption, LocalServer, Request, key_line, reachable,
};
use carga_common::settings::{AdminKey, Settings, TlsSettings};
use futures::{Stream, TryStreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::data_dir::RunningServer;

/// The server, with the certificate that it must have. Requests may have a key, so they never go to
/// a server with TLS whose certificate is unknown.
pub(super) fn trusted(running: RunningServer, settings: &Settings) -> anyhow::Result<LocalServer> {
    with_certificate(running, settings.intake.tls.as_ref())
}

fn with_certificate(
    running: RunningServer,
    tls: Option<&TlsSettings>,
) -> anyhow::Result<LocalServer> {
    let RunningServer { address, uses_tls } = running;
    let encryption = match (uses_tls, tls) {
        (false, _) => Encryption::None,
        (true, Some(tls)) => Encryption::Certificate(tls.certificate.clone()),
        (true, None) => bail!(
            "carga serve on {address} uses TLS; set CARGA_TLS_CERT and CARGA_TLS_KEY for this command as for the server"
        ),
    };
    Ok(LocalServer {
        address,
        encryption,
    })
}

/// Sends a request, with a JSON document if there is one. The server's refusal is the error.
pub(super) async fn ask(server: &LocalServer, request: Request<'_>) -> anyhow::Result<Answer> {
    let address = server.address;
    let answer = local_server::send(server, request).await;
    let answer = answer.with_context(|| cannot_reach(address))?;
    if answer.status.starts_with('2') {
        return Ok(answer);
    }
    check_key(address, &answer.status)?;
    let problem: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match problem["detail"].as_str() {
        Some(detail) => bail!("{detail}"),
        None => bail!("carga serve on {address} answered {}", answer.status),
    }
}

/// Sends a file with `POST`, piece by piece, and returns the body of the answer. The server's
/// refusal is the error, with its code.
pub(super) async fn send_file(
    server: &LocalServer,
    path: &str,
    key: Option<&AdminKey>,
    pieces: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> anyhow::Result<String> {
    let address = server.address;
    let head = head(reachable(address), path, key);
    let answer = exchange(server, &head, pieces).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    let status = status.trim_start_matches("HTTP/1.1 ");
    if status.starts_with('2') {
        return Ok(body.to_owned());
    }
    check_key(address, status)?;
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    match (problem["code"].as_str(), problem["detail"].as_str()) {
        (Some(code), Some(detail)) => bail!("{code}: {detail}"),
        _ => bail!("carga serve on {address} answered `{status}`"),
    }
}

/// The head of a request that sends a file.
fn head(server: SocketAddr, path: &str, key: Option<&AdminKey>) -> String {
    let key = key_line(key);
    format!(
        "POST {path} HTTP/1.1\r\nhost: {server}\r\n{key}content-type: text/csv\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
}

/// Sends the file, and reads the whole answer. The server may answer before the end of the file,
/// and reads nothing after its answer.
async fn exchange(
    server: &LocalServer,
    head: &str,
    pieces: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> anyhow::Result<String> {
    let stream = local_server::connect(server).await;
    let stream = stream.with_context(|| cannot_reach(server.address))?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = String::new();
    let sending = async {
        match send(&mut writer, head.as_bytes(), pieces).await {
            Err(Unsent::File(error)) => error,
            // If the server does not take the file, its answer has the reason.
            Ok(()) | Err(Unsent::Connection) => pending().await,
        }
    };
    tokio::select! {
        read = reader.read_to_string(&mut answer) => {
            read.with_context(|| cannot_reach(server.address))?;
            Ok(answer)
        }
        error = sending => Err(error).context("cannot read the file"),
    }
}

/// Why a file was not sent to its end.
enum Unsent {
    File(io::Error),
    Connection,
}

/// Writes the head of a request, and the file as a body of chunks (RFC 9112, 7.1).
async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    head: &[u8],
    mut pieces: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> Result<(), Unsent> {
    let unsent = |_| Unsent::Connection;
    writer.write_all(head).await.map_err(unsent)?;
    while let Some(piece) = pieces.try_next().await.map_err(Unsent::File)? {
        // An empty chunk would end the body.
        if piece.is_empty() {
            continue;
        }
        let length = format!("{:x}\r\n", piece.len());
        writer.write_all(length.as_bytes()).await.map_err(unsent)?;
        writer.write_all(&piece).await.map_err(unsent)?;
        writer.write_all(b"\r\n").await.map_err(unsent)?;
    }
    writer.write_all(b"0\r\n\r\n").await.map_err(unsent)?;
    // TLS may keep the end of the file in its buffer.
    writer.flush().await.map_err(unsent)
}

/// Fails with the remedy, if the server has refused the key of the command or requires one.
fn check_key(server: SocketAddr, status: &str) -> anyhow::Result<()> {
    if status.starts_with("401") {
        bail!(
            "carga serve on {server} requires a key; set CARGA_ADMIN_KEY to the same value for the server and for this command, or stop the server"
        );
    }
    Ok(())
}

fn cannot_reach(server: SocketAddr) -> String {
    format!("cannot reach carga serve on {server}")
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use tokio::net::TcpListener;

    use super::*;

    /// A server without TLS.
    fn plain(address: SocketAddr) -> LocalServer {
        LocalServer {
            address,
            encryption: Encryption::None,
        }
    }

    /// The pieces of a file.
    fn pieces(texts: &[&str]) -> impl Stream<Item = io::Result<Bytes>> + Unpin + use<> {
        let pieces = texts.iter();
        let pieces = pieces.map(|text| Ok(Bytes::copy_from_slice(text.as_bytes())));
        stream::iter(pieces.collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_file_is_sent_in_chunks() {
        let mut sent = Vec::new();
        let file = pieces(&["a,b\n", "", "0123456789abcdef\n"]);
        assert!(send(&mut sent, b"head ", file).await.is_ok());
        let expected = "head 4\r\na,b\n\r\n11\r\n0123456789abcdef\n\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }

    /// Answers one request after its first bytes, as a server does that refuses a file early.
    async fn answer_early(answer: &'static str) -> LocalServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut start = [0; 4];
            stream.read_exact(&mut start).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // The client has read the answer once it closes the connection.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
        plain(address)
    }

    #[tokio::test]
    async fn an_early_refusal_is_reported_although_the_file_does_not_end() {
        let problem =
            "HTTP/1.1 422 Unprocessable Entity\r\n\r\n{\"code\":\"no_key\",\"detail\":\"why\"}";
        let server = answer_early(problem).await;
        let endless = pieces(&["a,b\n"]).chain(stream::pending());
        let error = send_file(&server, "/", None, endless).await.unwrap_err();
        assert_eq!(error.to_string(), "no_key: why");
    }

    #[tokio::test]
    async fn a_refusal_because_of_the_key_names_the_setting() {
        let server = answer_early("HTTP/1.1 401 Unauthorized\r\n\r\n{}").await;
        let error = send_file(&server, "/", None, pieces(&["a\n"])).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("CARGA_ADMIN_KEY"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_ends_the_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = plain(listener.local_addr().unwrap());
        let broken = stream::iter([Err(io::Error::other("the disk is broken"))]);
        let error = send_file(&server, "/", None, broken).await.unwrap_err();
        let expected = "cannot read the file: the disk is broken";
        assert_eq!(format!("{error:#}"), expected);
    }

    #[test]
    fn a_server_with_tls_is_asked_only_with_the_certificate_of_the_settings() {
        let tls = TlsSettings {
            certificate: "cert.pem".into(),
            key: "key.pem".into(),
        };
        let mut running = RunningServer {
            address: ([127, 0, 0, 1], 8443).into(),
            uses_tls: true,
        };
        let error = with_certificate(running, None).unwrap_err().to_string();
        for expected in ["127.0.0.1:8443", "CARGA_TLS_CERT"] {
            assert!(error.contains(expected), "{error}");
        }
        let server = with_certificate(running, Some(&tls)).unwrap();
        assert!(
            matches!(server.encryption, Encryption::Certificate(file) if file == tls.certificate)
        );
        running.uses_tls = false;
        let server = with_certificate(running, Some(&tls)).unwrap();
        assert!(matches!(server.encryption, Encryption::None));
    }
}
