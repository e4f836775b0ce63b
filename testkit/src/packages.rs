//! Installs the Debian packages of the servers if they are missing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::home;

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
            Self::Postgres => postgres_bin().is_some(),
            Self::Redis => on_path("redis-server"),
            Self::Prometheus => on_path("prometheus") && on_path("promtool"),
            Self::Rabbit => Path::new(RABBIT_SERVER).exists() && on_path("epmd"),
            Self::Curl | Self::Pgloader | Self::Sqlite | Self::Valgrind => on_path(self.name()),
        }
    }
}

/// The server's own script. Its namesake in `/usr/sbin` is a wrapper that changes the user.
pub(crate) const RABBIT_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The directory of the newest Postgres' programs, which is not on the `PATH` on Debian.
pub(crate) fn postgres_bin() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let numbered = versions.filter_map(|entry| {
        let dir = entry.ok()?.path();
        let version: u32 = dir.file_name()?.to_str()?.parse().ok()?;
        let bin = dir.join("bin");
        bin.join("postgres").exists().then_some((version, bin))
    });
    numbered.max().map(|(_, bin)| bin)
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

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
}
