//! Installs the Debian packages of the servers if they are missing.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::home;
use crate::programs::{self, RABBIT, REDIS, on_path};

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Package {
    Postgres,
    Redis,
    Rabbit,
    /// Scrapes the metrics of Carga in the tests, and checks them with `promtool`.
    Prometheus,
    /// Sends files in the tests, as people do.
    Curl,
    /// `make bench` compares Carga with this one.
    Pgloader,
    /// `make bench` compares Carga with this one.
    Sqlite,
    /// `make instructions` counts instructions with this one.
    Valgrind,
}

impl Package {
    /// The packages that `make test` and `make services` need.
    pub const SERVERS: [Self; 4] = [Self::Postgres, Self::Redis, Self::Rabbit, Self::Curl];

    /// The name of the Debian package.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Redis => "redis-server",
            Self::Rabbit => "rabbitmq-server",
            Self::Prometheus => "prometheus",
            Self::Curl => "curl",
            Self::Pgloader => "pgloader",
            Self::Sqlite => "sqlite3",
            Self::Valgrind => "valgrind",
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Postgres => programs::newest_postgres().is_some(),
            Self::Redis => !REDIS.lacks_package("redis-server"),
            Self::Prometheus => ["prometheus", "promtool"]
                .iter()
                .all(|program| on_path(program).is_some()),
            Self::Rabbit => !["rabbitmq-server", "epmd"]
                .iter()
                .any(|program| RABBIT.lacks_package(program)),
            Self::Curl | Self::Pgloader | Self::Sqlite | Self::Valgrind => {
                on_path(self.name()).is_some()
            }
        }
    }
}

/// Installs those of the `wanted` packages that are missing. Does not call apt if there are none.
pub fn ensure_installed(wanted: &[Package]) -> Result<()> {
    if missing(wanted).is_empty() {
        return Ok(());
    }
    let lock = File::create(home::base()?.join("apt.lock"))?;
    lock.lock()?;
    let missing = missing(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("carga-testkit: installing {}", missing.join(", "));
    let advice = || {
        format!(
            "install these Debian packages and try again: {}",
            missing.join(" ")
        )
    };
    apt_get(&["update"]).with_context(advice)?;
    apt_get(
        &[
            &["install", "-y", "--no-install-recommends"],
            missing.as_slice(),
        ]
        .concat(),
    )
    .with_context(advice)?;
    ensure!(
        self::missing(wanted).is_empty(),
        "apt-get succeeded, but programs are still missing; {}",
        advice()
    );
    Ok(())
}

fn missing(wanted: &[Package]) -> Vec<&'static str> {
    wanted
        .iter()
        .filter(|package| !package.is_installed())
        .map(|package| package.name())
        .collect()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env"]);
        sudo
    };
    // Standard output may carry settings for a shell, so apt writes to standard error.
    let status = command
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-qq",
            "-o",
            "DPkg::Lock::Timeout=300",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
