//! The HTTP server. Binding and running are separate, so that a caller knows the address before
//! requests are served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::routing::RouterIntoService;
use carga_common::backends::{Backends, rate_limiter};
use carga_common::metrics::table::{HTTP_ACCEPT_ERRORS, TLS_HANDSHAKE_ERRORS};
use carga_common::metrics::{Counter, Exposition};
use carga_common::settings::{Authentication, Settings};
use carga_common::telemetry::LogFilter;
use carga_intake::intake::Intake;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::access::{self, JwtVerifier};
use crate::limits::Limits;
use crate::router;
use crate::state::ApiState;
use crate::transport::Transport;

/// Time allowed after the grace period to record failures and send answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server reads from a connection after the last answer, so that a client that is
/// still sending receives the answer.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The bytes that hyper reads from a connection at once, and so the limit of a request's head.
///
/// Every piece of a body is as large as one read. An upload has about eight pieces or copies of a
/// piece in hand at once: in the form, in the channel to the parser, and in the decoder.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// An API that has an address and serves no requests yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    transport: Transport,
    state: ApiState,
    header_timeout: Duration,
    grace: Duration,
}

impl Server {
    /// Binds the address in the settings. `authentication` says whether requests need a key, and
    /// `transport` whether connections are encrypted. `jwt` checks the JWTs of another issuer.
    /// Cancelling `stop` makes the server drain and stop.
    pub async fn bind(
        settings: &Settings,
        authentication: &Authentication,
        transport: Transport,
        jwt: Option<JwtVerifier>,
        backends: Backends,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(settings.intake.listen).await?;
        access::announce(settings, authentication, backends.store.as_ref()).await;
        let shared = match settings.limits.limits_requests() {
            true => rate_limiter(&settings.ports).await,
            false => Ok(None),
        };
        let shared = shared.map_err(std::io::Error::other)?;
        let store = Arc::clone(&backends.store) as _;
        let limits = Limits::new(&settings.limits, authentication, shared, store);
        let intake = settings.intake.clone();
        let state = ApiState::new(backends, intake, authentication, jwt, stop);
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            transport,
            header_timeout: settings.intake.header_timeout,
            grace: settings.grace,
            state: state.limited(limits, settings.limits.tenant),
        })
    }

    /// Adds the state of the intake to the metrics in `exposition`.
    pub fn watch(&self, exposition: &Exposition) {
        self.state.intake.watch(exposition);
    }

    /// Serves `exposition` as `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, exposition: Exposition) -> Self {
        self.state.exposition = Some(exposition);
        self
    }

    /// Lets administrators change this filter over HTTP.
    #[must_use]
    pub fn with_log_filter(mut self, filter: LogFilter) -> Self {
        self.state.log_filter = Some(filter);
        self
    }

    /// The address that the server listens on. For port 0 in the settings, it has the actual
    /// port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server, with its address as the host.
    pub fn url(&self) -> String {
        format!("{}://{}", self.transport.scheme(), self.address)
    }

    /// Serves until `stop` is cancelled. Then `/readyz` answers `draining`, new uploads are
    /// refused, and uploads in flight may finish within the grace period.
    pub async fn run(self) {
        let Self {
            listener,
            state,
            transport,
            header_timeout,
            ..
        } = self;
        let state = Arc::new(state);
        let heartbeat = tokio::spawn(state.intake.heartbeat());
        let connections = GracefulShutdown::new();
        let accept_errors = HTTP_ACCEPT_ERRORS.counter();
        let handshake_errors = TLS_HANDSHAKE_ERRORS.counter();
        let closing = CancellationToken::new();
        let app = router::service(Arc::clone(&state));
        let drained = drain(&state, self.grace);
        tokio::pin!(drained);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut drained => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection {
                        app: app.clone(),
                        peer,
                        header_timeout,
                        watcher: connections.watcher(),
                        handshake_errors: handshake_errors.clone(),
                    };
                    let handshakes = closing.clone();
                    tokio::spawn(connection.accept(stream, transport.clone(), handshakes));
                }
                Err(error) => {
                    accept_errors.increment(1);
                    // The usual cause is too many open files. Without a pause, this loop would
                    // spin.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        closing.cancel();
        if tokio::time::timeout(CLOSE_TIMEOUT, connections.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("dropping connections that are still open");
        }
        heartbeat.abort();
    }
}

/// The parts that serve one connection.
struct Connection {
    app: RouterIntoService<Incoming>,
    peer: SocketAddr,
    header_timeout: Duration,
    watcher: Watcher,
    handshake_errors: Counter,
}

impl Connection {
    /// Performs the TLS handshake, if the server uses TLS, and serves the connection. `closing`
    /// ends an unfinished handshake when the server stops; its connection has no request yet.
    async fn accept(self, stream: TcpStream, transport: Transport, closing: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection is already closed");
        }
        // The stream is dropped when the connection ends; this handle keeps the socket open.
        let lingering = stream.as_fd().try_clone_to_owned();
        match transport {
            Transport::Plain => self.serve(stream).await,
            Transport::Tls(tls) => {
                let handshake = tls.accept(stream, self.header_timeout);
                match closing.run_until_cancelled(handshake).await {
                    Some(Ok(stream)) => self.serve(stream).await,
                    Some(Err(error)) => {
                        self.handshake_errors.increment(1);
                        tracing::debug!(%error, "a TLS handshake failed");
                        return;
                    }
                    None => return,
                }
            }
        }
        if let Ok(lingering) = lingering {
            linger(lingering).await;
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let connection = http1::Builder::new()
            .max_buf_size(READ_BUFFER_BYTES)
            // The header timeout needs a timer. Without that timeout, a client could hold a
            // connection for ever by sending its head slowly.
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .serve_connection(TokioIo::new(stream), with_peer(self.app, self.peer));
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "a connection failed");
        }
    }
}

/// Adds the address of the peer to each request of a connection.
fn with_peer(
    app: RouterIntoService<Incoming>,
    peer: SocketAddr,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
+ Send
+ 'static {
    let app = TowerToHyperService::new(app);
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        app.call(request)
    })
}

/// Reads on for a moment after the last answer; nginx calls this a lingering close. Closing a
/// socket with unread bytes resets the connection, and the reset overtakes the answer. A client
/// in the middle of a large file would then never see why it was refused. With TLS, the answer ends
/// with a `close_notify`, and the bytes that are read here stay encrypted.
async fn linger(socket: OwnedFd) {
    let Ok(mut rest) = TcpStream::from_std(socket.into()) else {
        return;
    };
    let mut discarded = vec![0; 16 << 10];
    let read_on =
        async { while matches!(rest.read(&mut discarded).await, Ok(read) if read > 0) {} };
    // The client may never stop sending.
    let _ = tokio::time::timeout(LINGER_TIME, read_on).await;
}

/// Returns when the server is stopping and no upload is in flight. Uploads that outlast the
/// grace period are failed.
async fn drain(state: &ApiState, grace: Duration) {
    state.draining.cancelled().await;
    let Intake {
        tasks,
        abort_uploads,
        ..
    } = &state.intake;
    tasks.close();
    if tokio::time::timeout(grace, tasks.wait()).await.is_ok() {
        return;
    }
    tracing::warn!(uploads = tasks.len(), "the grace period is over");
    abort_uploads.cancel();
    if tokio::time::timeout(CLOSE_TIMEOUT, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            uploads = tasks.len(),
            "could not end all uploads; their leases will expire"
        );
    }
}

#[cfg(all(test, feature = "servers"))]
mod tests;
