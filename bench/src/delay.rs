//! A proxy that delays the answers of a server without limiting their throughput.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A running proxy. Dropping it stops it from accepting connections.
#[derive(Debug)]
pub(crate) struct Delay {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Delay {
    pub(crate) async fn start(server: SocketAddr, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Err(error) = forward(client, server, delay).await {
                        eprintln!("the delaying proxy failed: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(client: TcpStream, server: SocketAddr, delay: Duration) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(copy_with_delay(from_server, to_client, delay));
    tokio::io::copy(&mut from_client, &mut to_server).await?;
    to_server.shutdown().await?;
    answers.await?
}

async fn copy_with_delay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
) -> Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, BytesMut)>(1_000);
    let writing = tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    });
    loop {
        let mut piece = BytesMut::with_capacity(64 << 10);
        if from.read_buf(&mut piece).await? == 0 {
            break;
        }
        if sender.send((Instant::now() + delay, piece)).await.is_err() {
            break;
        }
    }
    drop(sender);
    Ok(writing.await??)
}
