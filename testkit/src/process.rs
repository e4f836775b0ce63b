//! Carga's own programs as child processes, to be killed as a machine would kill them.

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
    /// Everything in one process.
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

    /// What makes it run until it is stopped.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Api | Self::Worker => &[],
            Self::Carga => &["serve"],
        }
    }
}

/// A program of this workspace with none of the caller's settings, to be given arguments.
pub fn command(binary: Binary) -> Result<Command> {
    let mut command = Command::new(paths::workspace_binary(binary.name())?);
    remove_settings(&mut command);
    Ok(command)
}

/// A running program. Dropped, it is killed, and shows its log if the test is failing.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    process: ServerProcess,
    home: Home,
    is_quiet: bool,
}

impl Running {
    /// Starts a program of this workspace with these settings and none of the caller's own.
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

    /// It does not show its log in the end.
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

    /// SIGKILL; returns once the process is gone.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// SIGTERM: asks it to finish. [`wait`](Self::wait) for it then.
    pub fn terminate(&self) -> Result<()> {
        self.process.id().signal(Signal::TERM)
    }

    /// SIGSTOP: it stands still but keeps its connections, as a process does that is starved or swapped out.
    pub fn stop_signal(&self) -> Result<()> {
        self.process.id().signal(Signal::STOP)
    }

    /// SIGCONT: goes on after [`stop_signal`](Self::stop_signal).
    pub fn cont_signal(&self) -> Result<()> {
        self.process.id().signal(Signal::CONT)
    }

    /// Waits for it to end by itself.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        eventually(deadline, &what, async || self.process.exited().transpose()).await?
    }

    /// All it has written so far, to standard output and standard error.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// Waits until the log contains `text`; fails at once, with the log's end, if the program ends before.
    pub async fn wait_for_log(&mut self, text: &str, deadline: Duration) -> Result<()> {
        self.find_in_log(text, deadline, |log| log.contains(text).then_some(()))
            .await
    }

    /// Where it listens, from its log's `listening on http://ADDRESS`.
    pub async fn base_url(&mut self, deadline: Duration) -> Result<String> {
        self.find_in_log("listening on", deadline, listening_on)
            .await
    }

    async fn find_in_log<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let question = format!("{} to log {what:?}", self.name);
        let found = eventually(deadline, &question, async || {
            // Asked first: what it wrote before it ended still counts.
            let ended = self.process.exited();
            match (find(&self.log()), ended) {
                (Some(found), _) => Some(Ok(found)),
                (None, Ok(None)) => None,
                (None, ended) => Some(Err(ended)),
            }
        });
        let why = match found.await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(ended)) => format!("{} ended before it logged {what:?} ({ended:?})", self.name),
            Err(late) => late.to_string(),
        };
        bail!(
            "{why}; the end of its log:\n{}",
            tail(self.log_path(), 8_000)
        )
    }

    /// Memory in use now (`VmRSS`).
    pub fn rss_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory it has ever used (`VmHWM`).
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let bytes = self.id().memory(field);
        ensure!(bytes > 0, "{} has no {field} (has it ended?)", self.name);
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
        // The test harness shows this only for a test that failed, by a panic or by an error.
        eprintln!(
            "--- {} logged to {}:\n{}",
            self.name,
            self.log_path().display(),
            tail(self.log_path(), 20_000)
        );
        if std::thread::panicking() {
            // Until the next run clears it away.
            self.home.keep();
        }
    }
}

fn remove_settings(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(is_a_setting) {
            command.env_remove(key);
        }
    }
}

fn is_a_setting(variable: &str) -> bool {
    variable.starts_with("AWS_") || variable.starts_with("CARGA_") || variable.ends_with("_URL")
}

fn listening_on(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on http://")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !".:[]-".contains(c))?;
    Some(format!("http://{}", &rest[..end]))
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
    async fn a_program_gets_its_settings_and_is_asked_to_end() {
        let mut program = shell(
            "trap 'exit 7' TERM; echo $CARGA_GREETING; echo listening on http://127.0.0.1:4711; while :; do sleep 0.01; done",
        );
        assert_eq!(
            program.base_url(SOON).await.unwrap(),
            "http://127.0.0.1:4711"
        );
        assert!(program.log().starts_with("hello\n"));
        assert!(program.rss_bytes().unwrap() > 0);
        assert!(program.peak_rss_bytes().unwrap() >= program.rss_bytes().unwrap());
        program.stop_signal().unwrap();
        program.terminate().unwrap();
        program
            .wait(Duration::from_millis(100))
            .await
            .expect_err("it stands still");
        program.cont_signal().unwrap();
        assert_eq!(program.wait(SOON).await.unwrap().code(), Some(7));
    }

    #[tokio::test]
    async fn a_program_that_ends_early_is_not_waited_for_and_its_log_is_shown() {
        let error = shell("echo no such database; exit 1")
            .wait_for_log("worker ready", SOON)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no such database"), "{error}");
    }

    #[tokio::test]
    async fn a_killed_program_is_gone_when_kill9_returns() {
        let mut program = shell("sleep 600");
        program.kill9().unwrap();
        assert!(!Path::new(&format!("/proc/{}", program.pid())).exists());
        assert!(program.rss_bytes().is_err());
    }

    #[test]
    fn the_address_is_found_in_plain_and_in_json_logs() {
        for log in [
            "INFO carga: listening on http://127.0.0.1:4711\n",
            r#"{"message":"listening on http://127.0.0.1:4711"}"#,
        ] {
            assert_eq!(listening_on(log).as_deref(), Some("http://127.0.0.1:4711"));
        }
    }

    #[test]
    fn an_address_that_is_still_being_written_is_not_cut_short() {
        assert_eq!(listening_on("INFO listening on http://127.0.0.1:47"), None);
    }
}
