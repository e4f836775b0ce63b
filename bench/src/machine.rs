//! The machine and the program versions of a measurement.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::results::Machine;
use crate::rig::Rig;

pub(crate) async fn describe(rig: &Rig) -> Result<Machine> {
    let processor = value_of("/proc/cpuinfo", "model name")?;
    let (postgres,): (String,) = sqlx::query_as("SHOW server_version")
        .fetch_one(&rig.pool)
        .await?;
    let rabbit = output_of("dpkg-query", &["-W", "-f", "${Version}", "rabbitmq-server"]);
    let redis = output_of("redis-server", &["--version"]);
    let versions = [
        ("Carga", env!("CARGO_PKG_VERSION").to_owned()),
        ("PostgreSQL", first_word(&postgres)),
        ("RabbitMQ", rabbit),
        (
            "Redis",
            redis.split("v=").nth(1).map(first_word).unwrap_or_default(),
        ),
        (
            "sqlite3, the command line",
            first_word(&output_of("sqlite3", &["--version"])),
        ),
        (
            "pgloader",
            output_of("dpkg-query", &["-W", "-f", "${Version}", "pgloader"]),
        ),
        ("rustc", output_of("rustc", &["--version"])),
    ];
    Ok(Machine {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        processor,
        cores: std::thread::available_parallelism()?.get(),
        memory_gib: memory_bytes("MemTotal")?.div_ceil(1 << 30),
        versions: versions
            .map(|(name, version)| (name.to_owned(), version))
            .into(),
    })
}

/// A size from `/proc/meminfo`.
pub(crate) fn memory_bytes(name: &str) -> Result<u64> {
    let value = value_of("/proc/meminfo", name)?;
    let kibibytes: u64 = value.trim_end_matches(" kB").parse()?;
    Ok(kibibytes << 10)
}

fn value_of(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line
        .and_then(|line| line.split_once(':'))
        .map_or(String::new(), |(_, value)| value.trim().to_owned()))
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

fn first_word(text: &str) -> String {
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}
