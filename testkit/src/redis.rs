//! A private Redis without persistence, which is empty after a restart.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::home::Home;
use crate::packages::{self, Package};
use crate::pid::ProcessId;
use crate::programs::REDIS;
use crate::server::{Server, answers, free_port};
use crate::tls::Authority;

const START: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: u16,
    tls: Option<Tls>,
}

/// A second port with TLS.
#[derive(Debug)]
struct Tls {
    port: u16,
    certificate: PathBuf,
    key: PathBuf,
}

impl Redis {
    /// Starts a new, empty server. Dropping the handle removes it.
    pub async fn start() -> Result<Self> {
        Self::start_in(Home::private("redis")?).await
    }

    /// Like [`start`](Self::start), with a further port for TLS.
    pub async fn start_with_tls(authority: &Authority) -> Result<Self> {
        let tls = Tls {
            port: free_port()?,
            certificate: authority.server_certificate(),
            key: authority.server_key(),
        };
        Self::start_on(Home::private("redis")?, Some(tls)).await
    }

    pub(crate) async fn start_in(home: Home) -> Result<Self> {
        Self::start_on(home, None).await
    }

    async fn start_on(home: Home, tls: Option<Tls>) -> Result<Self> {
        packages::ensure_installed(&[Package::Redis])?;
        let mut redis = Self {
            server: Server::new("redis", home),
            port: free_port()?,
            tls,
        };
        redis.restart().await?;
        Ok(redis)
    }

    /// Restarts the server after [`stop`](Self::stop) or [`kill`](Self::kill), empty and on the
    /// same port.
    pub async fn restart(&mut self) -> Result<()> {
        let mut command = Command::new(REDIS.path("redis-server")?);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(self.server.home.path());
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        if let Some(tls) = &self.tls {
            command.args(["--tls-port", &tls.port.to_string()]);
            command.args(["--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(&tls.certificate);
            command.arg("--tls-key-file").arg(&tls.key);
        }
        let port = self.port;
        self.server
            .launch(command, START, async || is_ready(port).await)
            .await
    }

    pub async fn stop(&mut self) -> Result<()> {
        self.server.stop(Signal::TERM).await
    }

    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The URL of the port with TLS.
    pub fn tls_url(&self) -> Result<String> {
        let tls = self.tls.as_ref().context("this Redis has no TLS")?;
        Ok(format!("rediss://127.0.0.1:{}", tls.port))
    }

    pub(crate) fn detach(self) -> Result<ProcessId> {
        self.server.detach()
    }
}

pub(crate) async fn is_ready(port: u16) -> bool {
    answers(port, b"PING\r\n", b"+PONG").await
}
