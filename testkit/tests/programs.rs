//! The programs of the servers can come from another directory than those of Debian's packages.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory with a `redis-server` that leaves a mark and then runs the real one.
fn marking_redis(name: &str) -> (PathBuf, PathBuf) {
    let directory = fresh_directory(name);
    let mark = directory.join("mark");
    let program = directory.join("redis-server");
    let script = format!(
        "#!/bin/sh\n: >'{}'\nexec redis-server \"$@\"\n",
        mark.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, mark)
}

fn fresh_directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("programs-{name}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn testkit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carga-testkit"));
    command
        .env_remove("CARGA_TEST_POSTGRES_BIN")
        .env_remove("CARGA_TEST_RABBITMQ_BIN")
        .env_remove("CARGA_TEST_REDIS_BIN");
    command
}

#[test]
fn a_server_runs_from_the_directory_that_its_variable_names() {
    let (directory, mark) = marking_redis("redis");
    let mut owner = testkit()
        .args(["run", "redis"])
        .env("CARGA_TEST_REDIS_BIN", &directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(url.starts_with("redis://"), "{url:?}");
    assert!(mark.exists());
}

#[test]
fn a_directory_without_the_program_is_named_with_its_variable() {
    let directory = fresh_directory("empty");
    for (server, variable, program) in [
        ("postgres", "CARGA_TEST_POSTGRES_BIN", "initdb"),
        ("rabbit", "CARGA_TEST_RABBITMQ_BIN", "epmd"),
        ("redis", "CARGA_TEST_REDIS_BIN", "redis-server"),
    ] {
        let run = testkit()
            .args(["run", server])
            .env(variable, &directory)
            .output()
            .unwrap();
        assert!(!run.status.success());
        let expected = format!(
            "{variable}={}: the directory has no {program}",
            directory.display()
        );
        let log = stderr(&run);
        assert!(log.contains(&expected), "{log}");
    }
}

#[test]
fn up_states_the_versions_and_replaces_a_set_of_other_programs() {
    let set = Set(fresh_directory("set"));
    let first = set.up(None);
    let log = stderr(&first);
    let versions = log.lines().last().unwrap();
    for server in ["PostgreSQL ", "RabbitMQ ", "Redis "] {
        let version = versions.split_once(server).unwrap().1;
        let (major, rest) = version.split_once('.').unwrap();
        assert!(major.parse::<u32>().unwrap() > 0, "{versions}");
        assert!(rest.starts_with(|c: char| c.is_ascii_digit()), "{versions}");
    }
    assert_eq!(set.up(None).stdout, first.stdout);

    let (directory, mark) = marking_redis("replaced");
    let replaced = set.up(Some(&directory));
    assert!(replaced.status.success(), "{}", stderr(&replaced));
    assert_ne!(replaced.stdout, first.stdout);
    assert!(mark.exists());
}

/// A directory for a set of services. Dropping it removes the set, even if the test fails.
struct Set(PathBuf);

impl Set {
    fn up(&self, redis: Option<&Path>) -> Output {
        let mut command = testkit();
        if let Some(directory) = redis {
            command.env("CARGA_TEST_REDIS_BIN", directory);
        }
        let command = command.args(["services", "up", "--dir"]).arg(&self.0);
        command.output().unwrap()
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let _ = testkit()
            .args(["services", "down", "--dir"])
            .arg(&self.0)
            .status();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
