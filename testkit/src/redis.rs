//! A private Redis without persistence, which is empty after a restart.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::home::Home;
use crate::packages::{self, Package};
use crate::pid::ProcessId;
use crate::server::{Server, answers, free_port};

const START: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    /// Starts a new, empty server. Dropping the handle removes it.
    pub async fn start() -> Result<Self> {
        Self::start_in(Home::private("redis")?).await
    }

    pub(crate) async fn start_in(home: Home) -> Result<Self> {
        packages::ensure_installed(&[Package::Redis])?;
        let mut redis = Self {
            server: Server::new("redis", home),
            port: free_port()?,
        };
        redis.restart().await?;
        Ok(redis)
    }

    /// Restarts the server after [`stop`](Self::stop) or [`kill`](Self::kill), empty and on the
    /// same port.
    pub async fn restart(&mut self) -> Result<()> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(self.server.home.path());
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
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

    pub(crate) fn detach(self) -> Result<ProcessId> {
        self.server.detach()
    }
}

pub(crate) async fn is_ready(port: u16) -> bool {
    answers(port, b"PING\r\n", b"+PONG").await
}
