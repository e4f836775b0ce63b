//! A set of all four servers that outlives the process that started it. `make services` starts one,
//! and all test binaries share one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::bucket::S3Access;
use crate::home::{self, Home};
use crate::packages::{self, Package};
use crate::pid::ProcessId;
use crate::server::{Server, answers, free_port};
use crate::{
    LocalStack, Postgres, Rabbit, Redis, localstack, paths, postgres, programs, rabbit, redis, s3,
};

/// The name of the database and of the bucket in a new set.
const NAME: &str = "carga";

/// The S3 server of a set.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum S3Kind {
    /// `s3s-fs`, which starts within a second.
    #[default]
    S3sFs,
    /// LocalStack, which starts within seconds, or about a minute the first time.
    #[value(name = "localstack")]
    LocalStack,
}

/// The state of a running set, as stored in `<dir>/state.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    pub s3_kind: S3Kind,
    pub s3: S3Access,
    pub postgres_port: u16,
    pub rabbit_port: u16,
    pub redis_port: u16,
    s3_port: u16,
    /// Outside the set's directory if the `postgres` user cannot enter that one.
    pub postgres_home: PathBuf,
    /// The directories of programs that replace those of Debian's packages, by variable.
    programs: BTreeMap<String, PathBuf>,
    /// The processes by server. The set is complete only while all of them are alive.
    pub processes: BTreeMap<String, Vec<ProcessId>>,
}

impl State {
    pub fn database_url(&self, database: &str) -> String {
        format!(
            "postgres://carga@127.0.0.1:{}/{database}",
            self.postgres_port
        )
    }

    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.rabbit_port)
    }

    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }

    /// Carga's settings for this set's servers, database and bucket.
    pub fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.s3.env();
        env.insert("DATABASE_URL".to_owned(), self.database_url(NAME));
        env.insert("AMQP_URL".to_owned(), self.amqp_url());
        env.insert("REDIS_URL".to_owned(), self.redis_url());
        env.insert("ARCHIVE_URL".to_owned(), format!("s3://{NAME}"));
        env
    }

    async fn is_healthy(&self) -> bool {
        let all_are_ready = async {
            postgres::is_ready(&self.database_url("postgres")).await
                && redis::is_ready(self.redis_port).await
                && rabbit::is_ready(self.rabbit_port).await
                && s3_is_ready(self.s3_kind, self.s3_port).await
        };
        let mut processes = self.processes.values().flatten();
        processes.all(|process| process.is_alive())
            && tokio::time::timeout(Duration::from_secs(10), all_are_ready).await == Ok(true)
    }
}

/// Operations on sets of servers. A set is identified by its directory.
#[derive(Debug)]
pub struct Services;

impl Services {
    /// Returns the set that runs in `dir`. Starts a new one if there is none, if one of its servers
    /// has died, or if other programs are chosen now.
    pub async fn up(dir: &Path, s3: S3Kind) -> Result<State> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let _lock = lock(&dir).await?;
        if let Some(state) = read_state(&dir)
            && state.s3_kind == s3
            && state.programs == programs::chosen()
            && state.is_healthy().await
        {
            return Ok(state);
        }
        remove(&dir)?;
        eprintln!(
            "carga-testkit: starting Postgres, Redis, RabbitMQ and S3 in {}",
            dir.display()
        );
        let state = start(&dir, s3).await?;
        fs::write(dir.join("state.draft"), serde_json::to_vec_pretty(&state)?)?;
        fs::rename(dir.join("state.draft"), dir.join("state.json"))?;
        Ok(state)
    }

    /// Kills the set in `dir` and removes its data. Succeeds if there is none.
    pub async fn down(dir: &Path) -> Result<()> {
        if !dir.exists() {
            return Ok(());
        }
        let dir = dir.canonicalize()?;
        let _lock = lock(&dir).await?;
        remove(&dir)
    }

    /// Returns the set that runs in `dir`.
    pub async fn find(dir: &Path) -> Result<State> {
        let state = dir.canonicalize().ok().and_then(|dir| read_state(&dir));
        match state {
            Some(state) if state.is_healthy().await => Ok(state),
            _ => anyhow::bail!(
                "no complete set of services runs in {0}; \
                 start one with `carga-testkit services up --dir {0}`",
                dir.display()
            ),
        }
    }
}

/// Returns the set that all tests share.
///
/// It runs in the directory that `CARGA_TEST_SERVICES` names. Without that variable it runs in
/// `target/test-services`, is started if necessary, and stays for the next test binary.
pub async fn shared() -> Result<State> {
    match std::env::var_os("CARGA_TEST_SERVICES") {
        Some(dir) if !dir.is_empty() => Services::find(Path::new(&dir))
            .await
            .context("CARGA_TEST_SERVICES"),
        _ => Services::up(&paths::target_dir().join("test-services"), S3Kind::S3sFs).await,
    }
}

async fn start(dir: &Path, s3_kind: S3Kind) -> Result<State> {
    packages::ensure_installed(&Package::SERVERS)?;
    let postgres_home = match postgres::can_reach(dir).await {
        true => dir.join("postgres"),
        false => reachable_postgres_home(dir)?,
    };
    let (postgres, redis, rabbit, s3) = tokio::try_join!(
        Postgres::start_in(Home::at(postgres_home.clone())?),
        Redis::start_in(Home::at(dir.join("redis"))?),
        Rabbit::start_in(Home::at(dir.join("rabbit"))?),
        start_s3(s3_kind, dir.join("s3")),
    )?;
    postgres.create_database(NAME).await?;
    s3.access.create_bucket(NAME)?;

    // An error after a server is detached leaves it running; the next `up` or `down` removes it.
    let (postgres_port, redis_port, rabbit_port) = (postgres.port(), redis.port(), rabbit.port());
    let processes = [
        ("postgres", vec![postgres.detach()?]),
        ("rabbitmq", rabbit.detach()?.to_vec()),
        ("redis", vec![redis.detach()?]),
        ("s3", vec![s3.server.detach()?]),
    ];
    let processes = processes.map(|(name, processes)| (name.to_owned(), processes));
    Ok(State {
        s3_kind,
        s3: s3.access,
        postgres_port,
        rabbit_port,
        redis_port,
        s3_port: s3.port,
        postgres_home,
        programs: programs::chosen(),
        processes: processes.into(),
    })
}

/// An S3 server in a separate process.
struct DetachableS3 {
    server: DetachableServer,
    access: S3Access,
    port: u16,
}

enum DetachableServer {
    S3sFs(Server),
    LocalStack(LocalStack),
}

impl DetachableServer {
    fn detach(self) -> Result<ProcessId> {
        match self {
            Self::S3sFs(server) => server.detach(),
            Self::LocalStack(server) => server.detach(),
        }
    }
}

async fn start_s3(kind: S3Kind, dir: PathBuf) -> Result<DetachableS3> {
    let home = Home::at(dir)?;
    match kind {
        S3Kind::S3sFs => {
            let port = free_port()?;
            let data = home.path().join("data");
            fs::create_dir(&data)?;
            let mut command = Command::new(paths::workspace_binary("carga-testkit")?);
            command
                .args(["s3", "--port", &port.to_string(), "--dir"])
                .arg(&data);
            let mut server = Server::new("s3", home);
            server
                .launch(command, Duration::from_secs(30), async || {
                    s3_is_ready(kind, port).await
                })
                .await?;
            Ok(DetachableS3 {
                server: DetachableServer::S3sFs(server),
                access: s3::access(port, data),
                port,
            })
        }
        S3Kind::LocalStack => {
            let server = LocalStack::start_in(home).await?;
            let (access, port) = (server.access(), server.port());
            Ok(DetachableS3 {
                server: DetachableServer::LocalStack(server),
                access,
                port,
            })
        }
    }
}

async fn s3_is_ready(kind: S3Kind, port: u16) -> bool {
    match kind {
        S3Kind::S3sFs => answers(port, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.").await,
        S3Kind::LocalStack => localstack::is_ready(port).await,
    }
}

/// Locks the set in `dir`, so that one caller at a time starts or stops it.
async fn lock(dir: &Path) -> Result<File> {
    let file = File::create(dir.join("lock"))?;
    tokio::task::spawn_blocking(move || {
        file.lock()
            .map(|()| file)
            .context("cannot lock the set of services")
    })
    .await?
}

fn read_state(dir: &Path) -> Option<State> {
    serde_json::from_slice(&fs::read(dir.join("state.json")).ok()?).ok()
}

fn remove(dir: &Path) -> Result<()> {
    // Removed first, so that nobody takes a set that is being killed for a running one.
    let _ = fs::remove_file(dir.join("state.json"));
    for server in ["postgres", "redis", "rabbit", "s3"] {
        home::dispose(&dir.join(server))?;
    }
    home::dispose(&reachable_postgres_home(dir)?)
}

/// A directory for Postgres that the `postgres` user can enter, whatever the set's directory is.
fn reachable_postgres_home(dir: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    Ok(home::base()?.join(format!("services-postgres-{:016x}", hasher.finish())))
}
