//! A TCP relay in front of a server, for tests of slow connections and of connections that break in
//! unusual ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// How long the server may work on what it was sent before a cut.
const BEFORE_CUT: Duration = Duration::from_millis(200);

/// Relays connections to one server. A dropped relay closes them.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    /// Connections of an earlier generation are silent.
    generation: Arc<watch::Sender<u64>>,
    accepting: JoinHandle<()>,
}

/// Two texts of one connection after which it is cut: `last`, once `first` was seen before it.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub first: &'static str,
    pub last: &'static str,
}

impl Relay {
    /// Relays to the server in this URL.
    pub async fn start(url: &str) -> Result<Self> {
        Self::spawn(url, None, None).await
    }

    /// Relays to the server in this URL, and cuts one connection once: what the client has sent
    /// arrives, but its answer does not.
    pub async fn cutting(url: &str, cut: Cut) -> Result<Self> {
        Self::spawn(url, Some(cut), None).await
    }

    /// Relays to the server in this URL, and passes on this many bytes per second of what each
    /// client sends. Answers are not slowed down.
    pub async fn slow(url: &str, bytes_per_second: u32) -> Result<Self> {
        Self::spawn(url, None, Some(bytes_per_second)).await
    }

    async fn spawn(url: &str, cut: Option<Cut>, bytes_per_second: Option<u32>) -> Result<Self> {
        let server = authority(url)?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let generation = Arc::new(watch::Sender::new(0));
        let current = Arc::clone(&generation);
        let cut = Arc::new(Mutex::new(cut));
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let connection = Connection {
                    client,
                    server: server.clone(),
                    generation: current.subscribe(),
                    cut: Arc::clone(&cut),
                    bytes_per_second,
                };
                connections.spawn(connection.relay());
            }
        });
        Ok(Self {
            address,
            generation,
            accepting,
        })
    }

    /// The URL with this relay instead of its server.
    pub fn url(&self, url: &str) -> Result<String> {
        Ok(url.replacen(authority(url)?, &self.address.to_string(), 1))
    }

    /// Makes all present connections silent: they stay open towards the client, and nothing that
    /// it sends is read. The server sees them end. New connections are relayed as before.
    pub fn silence(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Host and port of a URL.
fn authority(url: &str) -> Result<&str> {
    let rest = url.split_once("://").context("not a URL")?.1;
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    Ok(authority.rsplit('@').next().unwrap_or(authority))
}

struct Connection {
    client: TcpStream,
    server: String,
    generation: watch::Receiver<u64>,
    cut: Arc<Mutex<Option<Cut>>>,
    /// The speed towards the server, if it is limited.
    bytes_per_second: Option<u32>,
}

impl Connection {
    async fn relay(mut self) {
        let Ok(server) = TcpStream::connect(&self.server).await else {
            return;
        };
        let (mut from_client, mut to_client) = self.client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let relaying = async {
            tokio::select! {
                sent = send(&mut from_client, &mut to_server, &self.cut, self.bytes_per_second) => {
                    // Answers are not relayed any more, but the server still works on its last
                    // statement.
                    if matches!(sent, Ok(End::Cut)) {
                        tokio::time::sleep(BEFORE_CUT).await;
                    }
                }
                _ = copy(&mut from_server, &mut to_client) => {}
            }
        };
        let is_silent = tokio::select! {
            () = relaying => false,
            changed = self.generation.changed() => changed.is_ok(),
        };
        if is_silent {
            drop((from_server, to_server));
            // The halves of the client's connection stay open.
            std::future::pending::<()>().await;
        }
    }
}

/// How a connection ends.
enum End {
    Closed,
    Cut,
}

/// Sends what the client writes, until one of both ends or the cut is reached.
async fn send(
    client: &mut OwnedReadHalf,
    server: &mut OwnedWriteHalf,
    cut: &Mutex<Option<Cut>>,
    bytes_per_second: Option<u32>,
) -> std::io::Result<End> {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_armed = false;
    loop {
        let length = client.read(&mut buffer).await?;
        let sent = buffer.get(..length).unwrap_or_default();
        if sent.is_empty() {
            return Ok(End::Closed);
        }
        if let Some(bytes_per_second) = bytes_per_second {
            tokio::time::sleep(Duration::from_secs(length as u64) / bytes_per_second).await;
        }
        let mut cut = cut.lock().await;
        is_armed |= cut.is_some_and(|cut| contains(sent, cut.first));
        if is_armed && cut.is_some_and(|cut| contains(sent, cut.last)) {
            *cut = None;
            server.write_all(sent).await?;
            return Ok(End::Cut);
        }
        drop(cut);
        server.write_all(sent).await?;
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
