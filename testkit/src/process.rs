//! Carga's programs as child processes that a test can signal and kill.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;

use crate::home::Home;
use crate::paths;
use crate::pid::ProcessId;
use crate::server::{ServerProcess, tail};
use crate::wait::eventually;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Binary {
    Api,
    Worker,
    /// The API and a worker in one process.
    Carga,
}

impl Binary {
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "carga-api",
            Self::Worker => "carga-worker",
            Self::Carga => "carga",
        }
    }

    /// The arguments that make the program run until it is stopped.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Api | Self::Worker => &[],
            Self::Carga => &["serve"],
        }
    }
}

/// A command for a program of this workspace, without the caller's settings.
pub fn command(binary: Binary) -> Result<Command> {
    let mut command = Command::new(paths::workspace_binary(binary.name())?);
    remove_settings(&mut command);
    Ok(command)
}

/// A running program. Dropping the handle kills it and prints its log, which the test harness shows
/// only if the test fails.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    process: ServerProcess,
    home: Home,
    is_quiet: bool,
}

impl Running {
    /// Starts a program of this workspace with these settings and none of the caller's.
    pub fn spawn(binary: Binary, env: &BTreeMap<String, String>) -> Result<Self> {
        let mut command = command(binary)?;
        command.args(binary.arguments());
        Self::start(binary.name(), command, env)
    }

    fn start(
        name: &'static str,
        mut command: Command,
        env: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let home = Home::private(name)?;
        let process = ServerProcess::spawn(&home, name, command.envs(env))?;
        Ok(Self {
            name,
            process,
            home,
            is_quiet: false,
        })
    }

    /// Suppresses the log that is otherwise printed when this handle is dropped.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    pub fn id(&self) -> ProcessId {
        self.process.id()
    }

    pub fn pid(&self) -> i32 {
        self.id().pid()
    }

    /// Sends SIGKILL, and returns once the process has ended.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Sends SIGTERM, which asks the program to finish. [`wait`](Self::wait) waits for its end.
    pub fn terminate(&self) -> Result<()> {
        self.process.id().signal(Signal::TERM)
    }

    /// Sends SIGHUP, which makes an API with TLS read its certificate again.
    pub fn hang_up(&self) -> Result<()> {
        self.process.id().signal(Signal::HUP)
    }

    /// Sends SIGUSR1, which changes the log filter of Carga's programs.
    pub fn change_log_filter(&self) -> Result<()> {
        self.process.id().signal(Signal::USR1)
    }

    /// Sends SIGSTOP. The program pauses but keeps its connections, like one that is swapped out.
    pub fn suspend(&self) -> Result<()> {
        self.process.id().signal(Signal::STOP)
    }

    /// Sends SIGCONT, which ends a [`suspend`](Self::suspend).
    pub fn resume(&self) -> Result<()> {
        self.process.id().signal(Signal::CONT)
    }

    /// Waits until the program ends.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        eventually(deadline, &what, async || self.process.exited().transpose()).await?
    }

    /// Everything that the program has written to standard output and standard error.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// Waits until the log contains `text`. Fails at once if the program ends first, with the end
    /// of the log.
    pub async fn wait_for_log(&mut self, text: &str, deadline: Duration) -> Result<()> {
        self.find_in_log(text, deadline, |log| log.contains(text).then_some(()))
            .await
    }

    /// The URL on which the program listens, from `listening on SCHEME://ADDRESS` in its log.
    pub async fn base_url(&mut self, deadline: Duration) -> Result<String> {
        self.find_in_log("listening on", deadline, url_in_log).await
    }

    async fn find_in_log<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let event = format!("{} to log {what:?}", self.name);
        let found = eventually(deadline, &event, async || {
            // Check for the end first, because a program may log its last lines just before it
            // ends.
            let ended = self.process.exited();
            match (find(&self.log()), ended) {
                (Some(found), _) => Some(Ok(found)),
                (None, Ok(None)) => None,
                (None, ended) => Some(Err(ended)),
            }
        });
        let reason = match found.await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(ended)) => format!("{} ended before it logged {what:?} ({ended:?})", self.name),
            Err(timeout) => timeout.to_string(),
        };
        bail!(
            "{reason}; the end of its log:\n{}",
            tail(self.log_path(), 8_000)
        )
    }

    /// The memory in use now (`VmRSS`).
    pub fn rss_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The peak memory use (`VmHWM`).
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let bytes = self.id().memory(field);
        ensure!(bytes > 0, "{} has no {field}; it may have ended", self.name);
        Ok(bytes)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            eprintln!("carga-testkit: {error:#}");
        }
        if self.is_quiet {
            return;
        }
        // The test harness shows this only if the test failed.
        eprintln!(
            "--- {} logged to {}:\n{}",
            self.name,
            self.log_path().display(),
            tail(self.log_path(), 20_000)
        );
        if std::thread::panicking() {
            // The logs remain to be read. The next run of the tests removes the directory.
            self.home.keep();
        }
    }
}

fn remove_settings(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(is_setting) {
            command.env_remove(key);
        }
    }
}

fn is_setting(variable: &str) -> bool {
    let prefixes = ["AWS_", "CARGA_", "OTEL_"];
    let has_prefix = prefixes.iter().any(|prefix| variable.starts_with(prefix));
    has_prefix || variable.ends_with("_URL")
}

fn url_in_log(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on http")?;
    let address = rest.find("://")? + 3;
    let is_end = |c: char| !c.is_ascii_alphanumeric() && !".:[]-".contains(c);
    let end = address + rest[address..].find(is_end)?;
    Some(format!("http{}", &rest[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start(
            "shell",
            command,
            &BTreeMap::from([("CARGA_GREETING".to_owned(), "hello".to_owned())]),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_program_gets_its_settings_and_obeys_signals() {
        let mut program = shell(
            "trap 'exit 7' TERM
             echo $CARGA_GREETING
             echo listening on http://127.0.0.1:4711
             while :; do sleep 0.01; done",
        );
        assert_eq!(
            program.base_url(SOON).await.unwrap(),
            "http://127.0.0.1:4711"
        );
        assert!(program.log().starts_with("hello\n"));
        assert!(program.rss_bytes().unwrap() > 0);
        assert!(program.peak_rss_bytes().unwrap() >= program.rss_bytes().unwrap());
        program.suspend().unwrap();
        program.terminate().unwrap();
        program
            .wait(Duration::from_millis(100))
            .await
            .expect_err("a suspended program cannot end");
        program.resume().unwrap();
        assert_eq!(program.wait(SOON).await.unwrap().code(), Some(7));
    }

    #[tokio::test]
    async fn waiting_for_the_log_of_an_ended_program_fails_with_its_log() {
        let error = shell("echo no such database; exit 1")
            .wait_for_log("worker ready", SOON)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no such database"), "{error}");
    }

    #[tokio::test]
    async fn kill9_returns_after_the_program_has_ended() {
        let mut program = shell("sleep 600");
        program.kill9().unwrap();
        assert!(!Path::new(&format!("/proc/{}", program.pid())).exists());
        assert!(program.rss_bytes().is_err());
    }

    #[test]
    fn the_url_is_found_in_text_and_json_logs() {
        for log in [
            "INFO carga: listening on http://127.0.0.1:4711\n",
            r#"{"message":"listening on http://127.0.0.1:4711"}"#,
        ] {
            assert_eq!(url_in_log(log).as_deref(), Some("http://127.0.0.1:4711"));
        }
        let encrypted = url_in_log("INFO listening on https://127.0.0.1:4711 rows=x");
        assert_eq!(encrypted.as_deref(), Some("https://127.0.0.1:4711"));
    }

    #[test]
    fn an_incomplete_url_is_not_returned() {
        assert_eq!(url_in_log("INFO listening on http://127.0.0.1:47"), None);
    }
}
