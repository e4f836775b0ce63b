//! A private PostgreSQL that syncs to disk, as in production, and keeps its rows after SIGKILL.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use sqlx::{Connection, PgConnection};

use crate::home::Home;
use crate::packages::{self, Package};
use crate::pid::ProcessId;
use crate::programs::POSTGRES;
use crate::server::{Server, free_port};
use crate::tls::Authority;

/// The superuser, who needs no password.
const USER: &str = "carga";
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: u16,
    has_tls: bool,
}

impl Postgres {
    /// Starts a new, empty server. Dropping the handle removes the server and its rows.
    pub async fn start() -> Result<Self> {
        Self::start_in(Home::private("postgres")?).await
    }

    /// Like [`start`](Self::start), and clients may use TLS.
    pub async fn start_with_tls(authority: &Authority) -> Result<Self> {
        Self::start_on(Home::private("postgres")?, Some(authority)).await
    }

    pub(crate) async fn start_in(home: Home) -> Result<Self> {
        Self::start_on(home, None).await
    }

    async fn start_on(home: Home, authority: Option<&Authority>) -> Result<Self> {
        packages::ensure_installed(&[Package::Postgres])?;
        initialise(home.path()).await?;
        if let Some(authority) = authority {
            copy_certificate(authority, home.path()).await?;
        }
        let mut postgres = Self {
            server: Server::new("postgres", home),
            port: free_port()?,
            has_tls: authority.is_some(),
        };
        postgres.restart().await?;
        Ok(postgres)
    }

    /// Restarts the server after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and
    /// with the same rows.
    pub async fn restart(&mut self) -> Result<()> {
        let mut command = as_server_user(POSTGRES.path("postgres")?);
        command.arg("-D").arg(self.server.home.path().join("data"));
        for setting in [
            format!("port={}", self.port).as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "max_wal_size=4GB",
            // Puts shared memory into the data directory rather than /dev/shm, so that removing the
            // directory of a killed server frees it.
            "dynamic_shared_memory_type=mmap",
        ] {
            command.args(["-c", setting]);
        }
        if self.has_tls {
            // The files are `server.crt` and `server.key` in the data directory by default.
            command.args(["-c", "ssl=on"]);
        }
        let url = self.url("postgres");
        self.server
            .launch(command, START, async || is_ready(&url).await)
            .await
    }

    /// Stops the server cleanly ("fast shutdown"). Open transactions are rolled back.
    pub async fn stop(&mut self) -> Result<()> {
        self.server.stop(Signal::INT).await
    }

    /// Restarts the server as a replica without a primary. It stays in recovery, and refuses to
    /// write, until `pg_promote()`.
    pub async fn restart_as_replica(&mut self) -> Result<()> {
        self.stop().await?;
        let signal = self.server.home.path().join("data/standby.signal");
        std::fs::write(&signal, "")?;
        give_to_server_user(&signal).await?;
        self.restart().await
    }

    /// Sends SIGKILL to the postmaster and every backend, as in a power failure.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    pub async fn create_database(&self, name: &str) -> Result<()> {
        create_database(&self.url("postgres"), name).await
    }

    pub(crate) fn detach(self) -> Result<ProcessId> {
        self.server.detach()
    }
}

pub(crate) async fn is_ready(url: &str) -> bool {
    let query = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query("select 1").execute(&mut connection).await?;
        connection.close().await
    };
    query.await.is_ok()
}

/// Creates a database. `url` names another database of the same server.
pub(crate) async fn create_database(url: &str, name: &str) -> Result<()> {
    // Copying a template fails while a client is connected to it, and template0 accepts no clients.
    execute(
        url,
        &format!("create database {} template template0", quoted(name)),
    )
    .await
    .with_context(|| format!("cannot create database {name}"))
}

pub(crate) async fn drop_database(url: &str, name: &str) -> Result<()> {
    execute(
        url,
        &format!("drop database if exists {} with (force)", quoted(name)),
    )
    .await
    .with_context(|| format!("cannot drop database {name}"))
}

async fn execute(url: &str, statement: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(statement).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn initialise(home: &Path) -> Result<()> {
    let data = home.join("data");
    std::fs::create_dir(&data)?;
    give_to_server_user(&data).await?;
    let mut initdb = as_server_user(POSTGRES.path("initdb")?);
    initdb.args([
        "-A",
        "trust",
        "-U",
        USER,
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-instructions",
    ]);
    // The new data directory holds nothing worth a sync yet. The server itself does sync.
    initdb
        .arg("--no-sync")
        .arg("-D")
        .arg(&data)
        .current_dir(home);
    run(&mut initdb).await
}

/// Copies the server's certificate and key. Postgres accepts a key only if nobody but its own user
/// can read it.
async fn copy_certificate(authority: &Authority, home: &Path) -> Result<()> {
    let data = home.join("data");
    for (source, name) in [
        (authority.server_certificate(), "server.crt"),
        (authority.server_key(), "server.key"),
    ] {
        let copy = data.join(name);
        std::fs::copy(source, &copy)?;
        std::fs::set_permissions(&copy, Permissions::from_mode(0o600))?;
        give_to_server_user(&copy).await?;
    }
    Ok(())
}

/// Root gives the path to the user that Postgres runs as.
async fn give_to_server_user(path: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").arg("postgres:postgres").arg(path)).await?;
    }
    Ok(())
}

/// Whether the user that Postgres runs as can enter a directory.
pub(crate) async fn can_reach(dir: &Path) -> bool {
    run(as_server_user("test").arg("-x").arg(dir)).await.is_ok()
}

/// Root runs the program as the package's user, because Postgres refuses to run as root.
fn as_server_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

async fn run(command: &mut Command) -> Result<()> {
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("")));
    let output = command
        .output()
        .await
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
