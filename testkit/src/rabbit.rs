//! A private RabbitMQ with its own name service (epmd), because a shared epmd would go on running.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::home::Home;
use crate::packages::{self, Package};
use crate::pid::ProcessId;
use crate::programs::RABBIT;
use crate::server::{Server, ServerProcess, answers, free_port};
use crate::tls::Authority;

/// A start takes about 6 s on an idle machine.
const START: Duration = Duration::from_secs(90);

/// The first bytes of a client of AMQP 0-9-1.
pub(crate) const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

#[derive(Debug)]
pub struct Rabbit {
    server: Server,
    /// Runs until the handle is dropped, even while the broker restarts.
    epmd: ServerProcess,
    node: String,
    port: u16,
    epmd_port: u16,
    /// Set explicitly, because the default, the AMQP port + 20,000, can exceed 65,535.
    distribution_port: u16,
    tls: Option<Tls>,
}

/// A second port with TLS.
#[derive(Debug)]
struct Tls {
    port: u16,
    /// The lines of `rabbitmq.conf` for this port.
    settings: String,
}

impl Tls {
    fn new(authority: &Authority) -> Result<Self> {
        let port = free_port()?;
        let settings = format!(
            "listeners.ssl.default = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {}\n\
             ssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\n\
             ssl_options.verify = verify_none\n\
             ssl_options.fail_if_no_peer_cert = false\n",
            authority.certificate().display(),
            authority.server_certificate().display(),
            authority.server_key().display(),
        );
        Ok(Self { port, settings })
    }
}

impl Rabbit {
    /// Starts a new, empty broker. Dropping the handle removes the broker and its queues.
    pub async fn start() -> Result<Self> {
        Self::start_in(Home::private("rabbit")?).await
    }

    /// Like [`start`](Self::start), with a further port for TLS.
    pub async fn start_with_tls(authority: &Authority) -> Result<Self> {
        Self::start_on(Home::private("rabbit")?, Some(Tls::new(authority)?)).await
    }

    pub(crate) async fn start_in(home: Home) -> Result<Self> {
        Self::start_on(home, None).await
    }

    async fn start_on(home: Home, tls: Option<Tls>) -> Result<Self> {
        packages::ensure_installed(&[Package::Rabbit])?;
        let epmd_port = free_port()?;
        let mut epmd = Command::new(RABBIT.path("epmd")?);
        epmd.args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
        let mut epmd = ServerProcess::spawn(&home, "epmd", &mut epmd)?;
        // The reply to a names request (type 110) begins with epmd's port number.
        let names = u32::from(epmd_port).to_be_bytes();
        epmd.wait_until_ready(START, async || {
            answers(epmd_port, &[0, 1, 110], &names).await
        })
        .await?;

        let mut rabbit = Self {
            epmd,
            server: Server::new("rabbitmq", home),
            // Node names must be unique among all users of a machine.
            node: format!(
                "carga-{}@localhost",
                &uuid::Uuid::new_v4().simple().to_string()[..12]
            ),
            port: free_port()?,
            epmd_port,
            distribution_port: free_port()?,
            tls,
        };
        rabbit.configure()?;
        rabbit.restart().await?;
        Ok(rabbit)
    }

    /// Restarts the broker after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and
    /// with the same durable queues.
    pub async fn restart(&mut self) -> Result<()> {
        let home = self.server.home.path();
        let mut command = Command::new(RABBIT.path("rabbitmq-server")?);
        command
            // RabbitMQ stores the Erlang cookie in the home directory.
            .env("HOME", home)
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
            // These files do not exist. They replace those of the machine's broker in
            // /etc/rabbitmq.
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", home.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", home.join("rabbitmq-env.conf"))
            // Schedulers that spin while idle would take processor time from the tested programs.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
            )
            // Makes the script exec the Erlang machine, which shuts down cleanly on SIGTERM.
            .env("detached", "1");
        let port = self.port;
        let tls_port = self.tls.as_ref().map(|tls| tls.port);
        self.server
            .launch(command, START, async || {
                is_ready(port).await && accepts_connections(tls_port).await
            })
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

    /// The URL of the port with TLS.
    pub fn tls_url(&self) -> Result<String> {
        let tls = self.tls.as_ref().context("this RabbitMQ has no TLS")?;
        Ok(format!("amqps://guest:guest@127.0.0.1:{}/%2f", tls.port))
    }

    /// Lets the broker and its name service outlive this process, and returns their processes.
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
        let tls = self.tls.as_ref().map_or("", |tls| tls.settings.as_str());
        let settings = settings + tls;
        fs::write(home.join("rabbitmq.conf"), settings)
            .and_then(|()| fs::write(home.join("enabled_plugins"), "[].\n"))
            .with_context(|| format!("cannot write RabbitMQ's settings to {}", home.display()))
    }
}

/// The listener for TLS opens after the other one.
async fn accepts_connections(tls_port: Option<u16>) -> bool {
    match tls_port {
        Some(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_ok(),
        None => true,
    }
}

pub(crate) async fn is_ready(port: u16) -> bool {
    // The first frame of the reply, `connection.start`, has type 1.
    answers(port, PROTOCOL_HEADER, &[1]).await
}
