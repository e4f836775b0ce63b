//! A private Prometheus, and `promtool`, which checks what Prometheus reads.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::home::Home;
use crate::packages::{self, Package};
use crate::server::{Server, answers, free_port};

const START: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Prometheus {
    _server: Server,
    port: u16,
}

impl Prometheus {
    /// Starts a server that scrapes the targets (`host:port`) of each job every second, and that
    /// has the alerts of `rules`. Dropping the handle removes it.
    pub async fn start(jobs: &[(&str, Vec<String>)], rules: &Path) -> Result<Self> {
        packages::ensure_installed(&[Package::Prometheus])?;
        let port = free_port()?;
        let home = Home::private("prometheus")?;
        let file = home.path().join("prometheus.yml");
        fs::write(&file, configuration(jobs, rules)?)?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        let data = home.path().join("data");
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut server = Server::new("prometheus", home);
        let is_ready = async || answers(port, READY, b"HTTP/1.0 200").await;
        server.launch(command, START, is_ready).await?;
        Ok(Self {
            _server: server,
            port,
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

const READY: &[u8] = b"GET /-/ready HTTP/1.0\r\n\r\n";

fn configuration(jobs: &[(&str, Vec<String>)], rules: &Path) -> Result<String> {
    let mut text = String::from(
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n",
    );
    writeln!(text, "rule_files: [{:?}]", rules.display().to_string())?;
    writeln!(text, "scrape_configs:")?;
    for (job, targets) in jobs {
        writeln!(text, "  - job_name: {job}")?;
        writeln!(text, "    static_configs: [{{targets: {targets:?}}}]")?;
    }
    Ok(text)
}

/// Runs `promtool` on this input. Fails if it complains, even about style alone.
pub fn promtool(arguments: &[&str], input: &str) -> Result<()> {
    packages::ensure_installed(&[Package::Prometheus])?;
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start promtool")?;
    if let Some(mut stdin) = promtool.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = promtool.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "promtool {arguments:?} complains ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
