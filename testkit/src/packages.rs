//! The Debian packages that the servers come from, installed when missing.

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
    /// What people send files with, and so one test does.
    Curl,
    /// The rest is what `make bench` compares with and measures by.
    Pgloader,
    Sqlite,
    Valgrind,
}

impl Package {
    /// What `make test` and `make services` need.
    pub const SERVERS: [Self; 4] = [Self::Postgres, Self::Redis, Self::Rabbit, Self::Curl];

    /// What apt calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Redis => "redis-server",
            Self::Rabbit => "rabbitmq-server",
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
            Self::Rabbit => Path::new(RABBIT_SERVER).exists() && on_path("epmd"),
            Self::Curl | Self::Pgloader | Self::Sqlite | Self::Valgrind => on_path(self.name()),
        }
    }
}

/// The script itself: the one in `/usr/sbin` wraps it to change the user.
pub(crate) const RABBIT_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The directory of the newest Postgres' programs, which Debian keeps off the `PATH`.
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

/// Installs what is missing of `wanted`; asks nothing and costs nothing if it is all there.
pub fn ensure_installed(wanted: &[Package]) -> Result<()> {
    if missing(wanted).is_empty() {
        return Ok(());
    }
    let turn = File::create(home::base()?.join("apt.lock"))?;
    turn.lock()?;
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
    // Standard output belongs to the commands that print settings for a shell.
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
