//! The HTTP server. Built first, run later, so that a caller knows the address before anything is served.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use axum::Router;
use carga_common::backends::Backends;
use carga_common::settings::Settings;
use carga_intake::intake::Intake;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::router::router;
use crate::state::ApiState;

/// After the grace period uploads are cut off; this long they may take to record it, and answers to be sent.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A client that was refused in the middle of its file has so long to notice.
const LINGER: Duration = Duration::from_secs(2);

/// An API that listens and is not served yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    state: ApiState,
    header_timeout: Duration,
    grace: Duration,
}

impl Server {
    /// Binds the address of the settings. `stop` makes it drain and end.
    pub async fn bind(
        settings: &Settings,
        backends: Backends,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(settings.intake.listen).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            header_timeout: settings.intake.header_timeout,
            grace: settings.grace,
            state: ApiState::new(backends, settings.intake.clone(), stop),
        })
    }

    /// Where it listens; with port 0 in the settings, the port it was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until told to stop. Then uploads in flight may finish within the grace period, while new ones are refused and
    /// `/readyz` says so.
    pub async fn run(self) {
        let Self {
            listener,
            state,
            header_timeout,
            ..
        } = self;
        let heartbeat = tokio::spawn(state.intake.heartbeat());
        let connections = GracefulShutdown::new();
        let app = router(state.clone());
        let drained = drain(&state, self.grace);
        tokio::pin!(drained);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut drained => break,
            };
            match accepted {
                Ok((stream, _)) => serve(stream, app.clone(), header_timeout, &connections),
                Err(error) => {
                    // Usually too many open files; without a pause this would spin.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        if tokio::time::timeout(LAST_WORDS, connections.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("connections are still open and are dropped");
        }
        heartbeat.abort();
    }
}

fn serve(stream: TcpStream, app: Router, header_timeout: Duration, connections: &GracefulShutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection is gone already");
    }
    let twin = stream.as_fd().try_clone_to_owned();
    let connection = http1::Builder::new()
        // The timeout works only with a timer, and without it a client may hold a connection by sending its head for ever.
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended badly");
        }
        if let Ok(twin) = twin {
            linger(twin).await;
        }
    });
}

/// Reads on for a moment where the answer is the last that was to be said. A socket that is closed with something unread in it
/// is reset, and a reset overtakes the answer: a client in the middle of a large file would never see why it was refused.
async fn linger(twin: OwnedFd) {
    let Ok(mut rest) = TcpStream::from_std(twin.into()) else {
        return;
    };
    let mut thrown_away = vec![0; 16 << 10];
    let read_on =
        async { while matches!(rest.read(&mut thrown_away).await, Ok(read) if read > 0) {} };
    // The client may never end.
    let _ = tokio::time::timeout(LINGER, read_on).await;
}

/// Ends when the server was told to stop and no upload is in flight any more. Uploads that outlast the grace period are
/// failed.
async fn drain(state: &ApiState, grace: Duration) {
    state.draining.cancelled().await;
    let Intake {
        tasks, out_of_time, ..
    } = &state.intake;
    tasks.close();
    if tokio::time::timeout(grace, tasks.wait()).await.is_ok() {
        return;
    }
    tracing::warn!(uploads = tasks.len(), "the grace period is over");
    out_of_time.cancel();
    if tokio::time::timeout(LAST_WORDS, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            uploads = tasks.len(),
            "uploads could not be ended; their leases will run out"
        );
    }
}
