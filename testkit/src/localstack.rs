//! LocalStack's S3 without Docker: its Python package, in a virtual environment in `target`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::bucket::{Objects, S3Access};
use crate::home::Home;
use crate::paths::{repository, target_dir};
use crate::pid::ProcessId;
use crate::server::{Server, answers, free_port};

const START: Duration = Duration::from_secs(120);
/// The Python version for which the packages are pinned. They are those of LocalStack 4.3, because
/// later releases need Python 3.12.
const PYTHON: &str = "3.11";

#[derive(Debug)]
pub struct LocalStack {
    server: Server,
    python: PathBuf,
    port: u16,
}

impl LocalStack {
    /// Starts a new server without buckets. Dropping the handle removes it. The first start
    /// downloads the packages.
    pub async fn start() -> Result<Self> {
        Self::start_in(Home::private("localstack")?).await
    }

    pub(crate) async fn start_in(home: Home) -> Result<Self> {
        let python = tokio::task::spawn_blocking(installed_python).await??;
        let mut localstack = Self {
            server: Server::new("localstack", home),
            python,
            port: free_port()?,
        };
        localstack.restart().await?;
        Ok(localstack)
    }

    /// Restarts the server after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port. It
    /// is empty then, because the free LocalStack does not persist objects.
    pub async fn restart(&mut self) -> Result<()> {
        let home = self.server.home.path();
        let temporary = home.join("tmp");
        fs::create_dir_all(&temporary)?;
        let mut command = Command::new(&self.python);
        command
            .args(["-m", "localstack.runtime.main"])
            .env("SERVICES", "s3")
            .env("EAGER_SERVICE_LOADING", "1")
            .env("DISABLE_EVENTS", "1")
            .env("SKIP_SSL_CERT_DOWNLOAD", "1")
            .env("GATEWAY_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("LOCALSTACK_VOLUME_DIR", home.join("volume"))
            .env("TMPDIR", &temporary)
            .env("HOME", home);
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

    pub fn access(&self) -> S3Access {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        S3Access {
            objects: Objects::Http(endpoint.clone()),
            endpoint,
            access_key: "test".to_owned(),
            secret_key: "test".to_owned(),
        }
    }

    pub(crate) fn detach(self) -> Result<ProcessId> {
        self.server.detach()
    }
}

pub(crate) async fn is_ready(port: u16) -> bool {
    let request =
        b"GET /_localstack/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    answers(port, request, b"HTTP/1.1 200").await
}

/// The Python of a virtual environment with exactly the pinned packages. Creating the environment
/// the first time takes about a minute.
fn installed_python() -> Result<PathBuf> {
    let requirements = repository().join("localstack/host-requirements.txt");
    let pins = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let environment = target_dir().join("localstack-venv");
    let python = environment.join("bin/python");
    // Written last, so that an interrupted or outdated installation is recognised.
    let stamp = environment.join("installed-pins.txt");

    fs::create_dir_all(target_dir())?;
    let lock = fs::File::create(target_dir().join("localstack-venv.lock"))?;
    lock.lock()?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == pins) {
        return Ok(python);
    }
    if environment.exists() {
        fs::remove_dir_all(&environment)?;
    }
    eprintln!(
        "carga-testkit: installing LocalStack into {}",
        environment.display()
    );
    run(Command::new(system_python()?)
        .args(["-m", "venv"])
        .arg(&environment))
    .context("cannot create a virtual environment; install the Debian package python3-venv")?;
    let mut install = Command::new(&python);
    install.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "-r",
    ]);
    run(install.arg(&requirements))?;
    fs::write(&stamp, pins)?;
    Ok(python)
}

fn system_python() -> Result<&'static str> {
    let has_version = |program: &&str| {
        let version = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let expected = format!("Python {PYTHON}.");
        version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).starts_with(&expected))
    };
    match ["python3", "python3.11"].into_iter().find(has_version) {
        Some(program) => Ok(program),
        None => {
            bail!(
                "LocalStack needs Python {PYTHON}; neither python3 nor python3.11 is that version"
            )
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let output_text = || {
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    ensure!(
        output.status.success(),
        "{command:?} failed ({}):\n{}",
        output.status,
        output_text()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_pins_the_localstack_release() {
        let pins =
            std::fs::read_to_string(super::repository().join("localstack/host-requirements.txt"))
                .unwrap();
        assert!(
            pins.lines()
                .any(|line| line.starts_with("localstack-core==4.3"))
        );
    }
}
