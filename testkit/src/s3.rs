//! A private S3 server (`s3s-fs`) inside this process, whose objects are plain files that a test
//! can read.
//!
//! The server has its own threads, so it outlives the runtime of the test that started it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::S3ServiceBuilder;
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::bucket::{self, Objects, S3Access};
use crate::home::Home;
use crate::server::free_port;

const ACCESS_KEY: &str = "carga";
const SECRET_KEY: &str = "carga-secret";
/// How long a stop waits for the requests in flight.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct S3 {
    running: Option<Serving>,
    port: u16,
    home: Home,
    key: Key,
}

/// The access key of the server, which can be revoked while the server runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Key {
    is_revoked: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl S3Auth for Key {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key != ACCESS_KEY || self.is_revoked.load(Ordering::Relaxed) {
            return Err(s3_error!(InvalidAccessKeyId));
        }
        Ok(SecretKey::from(SECRET_KEY))
    }
}

#[derive(Debug)]
struct Serving {
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<Result<()>>,
    shutdown: oneshot::Sender<()>,
    /// Disconnected once the listener and all connections have been dropped.
    ended: mpsc::Receiver<()>,
}

impl S3 {
    /// Starts a new server without buckets. Dropping the handle removes the server and its objects.
    pub async fn start() -> Result<Self> {
        let home = Home::private("s3")?;
        fs::create_dir(home.path().join("data"))?;
        let mut s3 = Self {
            running: None,
            port: free_port()?,
            home,
            key: Key::default(),
        };
        s3.restart().await?;
        Ok(s3)
    }

    /// Restarts the server after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and
    /// with the same objects.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the S3 server is running already");
        let files = open(&self.data()).await?;
        let listener = listen(self.port)?;
        let key = self.key.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("testkit-s3")
            .enable_all()
            .build()?;
        let (shutdown, shut_down) = oneshot::channel();
        let (running, ended) = mpsc::channel();
        let task = runtime.spawn(async move {
            let served = serve(listener, files, key, async {
                // Dropping the sender stops the server as well.
                let _ = shut_down.await;
            })
            .await;
            drop(running);
            served
        });
        self.running = Some(Serving {
            runtime,
            task,
            shutdown,
            ended,
        });
        Ok(())
    }

    /// Answers the requests in flight, then closes every connection.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(Serving {
            runtime,
            task,
            shutdown,
            ..
        }) = self.running.take()
        else {
            return Ok(());
        };
        drop(shutdown);
        let served = task.await;
        runtime.shutdown_background();
        served?
    }

    /// Drops every connection at once, even in the middle of a request.
    pub fn kill(&mut self) -> Result<()> {
        let Some(Serving {
            runtime,
            task,
            ended,
            ..
        }) = self.running.take()
        else {
            return Ok(());
        };
        task.abort();
        let ended = ended.recv_timeout(Duration::from_secs(10));
        runtime.shutdown_background();
        ensure!(
            ended == Err(mpsc::RecvTimeoutError::Disconnected),
            "the S3 server could not be killed within 10 s"
        );
        Ok(())
    }

    /// Refuses the access key from the next request on.
    pub fn revoke_key(&self) {
        self.key.is_revoked.store(true, Ordering::Relaxed);
    }

    /// Accepts the access key again.
    pub fn restore_key(&self) {
        self.key.is_revoked.store(false, Ordering::Relaxed);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn create_bucket(&self, name: &str) -> Result<()> {
        self.access().create_bucket(name)
    }

    /// The keys of a bucket, sorted. The server need not be running.
    pub fn objects(&self, bucket: &str) -> Result<Vec<String>> {
        bucket::keys_in(&self.data().join(bucket))
    }

    /// An object's bytes. The server need not be running.
    pub fn read(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        bucket::read_file(&self.data().join(bucket).join(key))
    }

    pub fn access(&self) -> S3Access {
        access(self.port, self.data())
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("carga-testkit: {error:#}");
        }
    }
}

/// The access to an `s3s-fs` server on this port that serves this directory.
pub(crate) fn access(port: u16, data: PathBuf) -> S3Access {
    S3Access {
        endpoint: format!("http://127.0.0.1:{port}"),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        objects: Objects::Directory(data),
    }
}

/// Opens a directory of objects, and removes what a server that was killed left unfinished.
pub(crate) async fn open(data: &Path) -> Result<FileSystem> {
    const PAUSE: Duration = Duration::from_millis(50);
    ensure!(data.is_dir(), "{} is not a directory", data.display());
    let mut tries = 0;
    loop {
        match FileSystem::new(data) {
            Ok(files) => return Ok(files),
            // A file that a killed server was writing may disappear while this one removes it.
            Err(_) if tries < 100 => tries += 1,
            Err(error) => bail!("cannot serve {}: {error:?}", data.display()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves `files` until `shutdown`, then finishes the requests in flight. Dropping the future drops
/// every connection.
pub(crate) async fn serve(
    listener: TcpListener,
    files: FileSystem,
    key: Key,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(key);
    let service = service.build();

    let listener = tokio::net::TcpListener::from_std(listener)?;
    let http = auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            // An error here means that the client disconnected, which is no fault of the server.
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        socket.set_nodelay(true)?;
        let connection = http.serve_connection(TokioIo::new(socket), service.clone());
        connections.spawn(graceful.watch(connection.into_owned()));
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        bail!("S3 requests were still in flight {DRAIN:?} after the server was asked to stop");
    }
    Ok(())
}

pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_restarts_while_its_last_files_disappear() -> Result<()> {
        let mut s3 = S3::start().await?;
        let data = s3.data();
        let (done, is_done) = mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            while is_done.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let file = |number| data.join(format!(".tmp.{number}.internal.part"));
                for number in 0..20 {
                    fs::write(file(number), "").unwrap();
                }
                for number in 0..20 {
                    // The server that starts may have removed it.
                    let _ = fs::remove_file(file(number));
                }
            }
        });
        for _ in 0..50 {
            s3.kill()?;
            s3.restart().await?;
            // A server that cannot serve closes its port soon.
            tokio::time::sleep(Duration::from_millis(10)).await;
            let address = (Ipv4Addr::LOCALHOST, s3.port());
            ensure!(tokio::net::TcpStream::connect(address).await.is_ok());
        }
        drop(done);
        writer.join().expect("the writer ends");
        Ok(())
    }
}
