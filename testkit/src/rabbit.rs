//! A private RabbitMQ with its own name service (epmd), so that nothing shared is left running.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::home::Home;
use crate::packages::{self, Package};
use crate::pid::ProcessId;
use crate::server::{Server, ServerProcess, answers, free_port};

/// It takes about 6 s on an idle machine.
const START: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct Rabbit {
    server: Server,
    /// Serves the broker's name through every restart of it.
    epmd: ServerProcess,
    node: String,
    port: u16,
    epmd_port: u16,
    /// Its default, the AMQP port + 20,000, is no port at all for a high one.
    distribution_port: u16,
}

impl Rabbit {
    /// Starts a new, empty broker. It and its queues are gone when the handle is dropped.
    pub async fn start() -> Result<Self> {
        Self::start_in(Home::private("rabbit")?).await
    }

    pub(crate) async fn start_in(home: Home) -> Result<Self> {
        packages::ensure_installed(&[Package::Rabbit])?;
        let epmd_port = free_port()?;
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
        let mut epmd = ServerProcess::spawn(&home, "epmd", &mut epmd)?;
        // A names request (type 110), answered with epmd's own port number first.
        let names = u32::from(epmd_port).to_be_bytes();
        epmd.ready(START, async || {
            answers(epmd_port, &[0, 1, 110], &names).await
        })
        .await?;

        let mut rabbit = Self {
            epmd,
            server: Server::new("rabbitmq", home),
            // Even an Erlang node of another user's on this machine must not have the same name.
            node: format!(
                "carga-{}@localhost",
                &uuid::Uuid::new_v4().simple().to_string()[..12]
            ),
            port: free_port()?,
            epmd_port,
            distribution_port: free_port()?,
        };
        rabbit.configure()?;
        rabbit.restart().await?;
        Ok(rabbit)
    }

    /// Starts it again, on the same port and with the same durable queues, after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        let home = self.server.home.path();
        let mut command = Command::new(packages::RABBIT_SERVER);
        command
            .env("HOME", home) // of the Erlang cookie
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", home.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", home.join("log"))
            .env("RABBITMQ_PID_FILE", home.join("rabbitmq-server.pid-of-its-own"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", home.join("generated"))
            .env("RABBITMQ_SCHEMA_DIR", home.join("schema"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
            // Neither exists: what the machine's own broker is told in /etc/rabbitmq is not for this one.
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", home.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", home.join("rabbitmq-env.conf"))
            // Schedulers that spin while idle would take the processor from what is being tested.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
            )
            // Makes the script replace itself by the Erlang machine, which takes a SIGTERM as a request to stop in order.
            .env("detached", "1");
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
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// The broker and its name service.
    pub(crate) fn detach(self) -> Result<[ProcessId; 2]> {
        Ok([self.epmd.id(), self.server.detach()?])
    }

    fn configure(&self) -> Result<()> {
        let home = self.server.home.path();
        let settings = format!(
            "listeners.tcp.default = 127.0.0.1:{}\n\
             loopback_users = none\n\
             vm_memory_high_watermark.relative = 0.4\n\
             disk_free_limit.absolute = 50MB\n\
             raft.wal_max_size_bytes = 64000000\n",
            self.port
        );
        fs::write(home.join("rabbitmq.conf"), settings)
            .and_then(|()| fs::write(home.join("enabled_plugins"), "[].\n"))
            .with_context(|| format!("cannot write RabbitMQ's settings to {}", home.display()))
    }
}

pub(crate) async fn is_ready(port: u16) -> bool {
    // The protocol header of AMQP 0-9-1; the broker's first frame, `connection.start`, is of type 1.
    answers(port, b"AMQP\x00\x00\x09\x01", &[1]).await
}
