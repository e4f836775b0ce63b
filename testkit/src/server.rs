//! A server as a child process: start, wait until ready, stop, kill.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::home::{Home, MARKER};
use crate::pid::{self, ProcessId};
use crate::wait::eventually;

/// One process in a [`Home`]. Dropping the home kills it.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    name: &'static str,
    child: Child,
    id: ProcessId,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts `command` in its own process group, so that Ctrl-C at a terminal does not reach it.
    pub(crate) fn spawn(home: &Home, name: &'static str, command: &mut Command) -> Result<Self> {
        let log = home.path().join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command
            .env(MARKER, home.path())
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let id = ProcessId::of(child.id()).with_context(|| format!("{name} ended immediately"))?;
        home.record(name, id)?;
        Ok(Self {
            name,
            child,
            id,
            log,
        })
    }

    pub(crate) fn id(&self) -> ProcessId {
        self.id
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `probe` returns true. Fails at once if the process ends before that. Every
    /// failure repeats the last part of the log.
    pub(crate) async fn wait_until_ready(
        &mut self,
        deadline: Duration,
        mut probe: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        let answer = eventually(deadline, &what, async || match self.child.try_wait() {
            Ok(None) if probe().await => Some(None),
            Ok(None) => None,
            ended => Some(Some(ended)),
        });
        let reason = match answer.await {
            Ok(None) => return Ok(()),
            Ok(Some(ended)) => format!("{} ended before it was ready ({ended:?})", self.name),
            Err(timeout) => timeout.to_string(),
        };
        bail!(
            "{reason}; the end of {}:\n{}",
            self.log.display(),
            tail(&self.log, 4_000)
        )
    }

    /// Sends the process a signal that asks it to finish, and waits until it has ended.
    pub(crate) async fn stop(&mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus> {
        self.id.signal(signal)?;
        let what = format!("{} to stop", self.name);
        eventually(deadline, &what, async || self.child.try_wait().transpose())
            .await?
            .map_err(Into::into)
    }

    /// Sends SIGKILL to the process and its descendants, and returns once all have ended.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        pid::kill_trees(&[self.id])?;
        Ok(self.child.wait()?)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Reaps the process if it has ended, so that no zombie stays.
        let _ = self.child.try_wait();
    }
}

/// The common part of all servers: a directory, and a process while the server runs.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    /// Fields are dropped in order. The drop of `home` kills the process, and the drop of `process`
    /// then reaps it.
    pub(crate) home: Home,
    process: Option<ServerProcess>,
}

impl Server {
    pub(crate) fn new(name: &'static str, home: Home) -> Self {
        Self {
            name,
            process: None,
            home,
        }
    }

    pub(crate) async fn launch(
        &mut self,
        mut command: Command,
        deadline: Duration,
        probe: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        if let Some(process) = &mut self.process {
            ensure!(
                process.exited()?.is_some(),
                "{} is running already",
                self.name
            );
        }
        let process =
            self.process
                .insert(ServerProcess::spawn(&self.home, self.name, &mut command)?);
        process.wait_until_ready(deadline, probe).await
    }

    pub(crate) async fn stop(&mut self, signal: Signal) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.stop(signal, Duration::from_secs(60)).await?;
            self.process = None;
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    pub(crate) fn id(&self) -> Option<ProcessId> {
        self.process.as_ref().map(ServerProcess::id)
    }

    /// Lets the server outlive this handle and this process. Returns the id of the server's
    /// process.
    pub(crate) fn detach(mut self) -> Result<ProcessId> {
        self.home.keep();
        self.id()
            .with_context(|| format!("{} is not running", self.name))
    }
}

/// A port without a listener, below the range of the kernel's ephemeral ports.
///
/// The kernel could give a port of that range to an outgoing connection while its server restarts.
/// A client that tries to reach the server again could even get the port as its own, and so connect
/// to itself.
pub(crate) fn free_port() -> Result<u16> {
    let first_client_port = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_ascii_whitespace().next()?.parse::<u16>().ok())
        .filter(|first| *first > 20_000)
        .unwrap_or(u16::MAX);
    let candidates = first_client_port - 10_240;
    for _ in 0..200 {
        let random = uuid::Uuid::new_v4().as_u128() % u128::from(candidates);
        let port = 10_240 + u16::try_from(random)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("found no free TCP port in 200 attempts")
}

/// Whether a server on this port replies to `request` with bytes that start with `reply`.
pub(crate) async fn answers(port: u16, request: &[u8], reply: &[u8]) -> bool {
    let exchange = async {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        connection.write_all(request).await?;
        let mut received = vec![0; reply.len()];
        connection.read_exact(&mut received).await?;
        std::io::Result::Ok(received)
    };
    exchange.await.is_ok_and(|received| received == reply)
}

/// The last `bytes` of a log, for an error message.
pub(crate) fn tail(log: &Path, bytes: u64) -> String {
    let read = || {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        std::io::Result::Ok(end)
    };
    read().map_or_else(
        |error| format!("({error})"),
        |end| String::from_utf8_lossy(&end).into_owned(),
    )
}
