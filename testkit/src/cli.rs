//! The command line that `make services` and `make test` start their servers with.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::packages::{self, Package};
use crate::{Postgres, Rabbit, Redis, S3Kind, Services, State, paths, s3, versions};

/// Real Postgres, Redis, RabbitMQ and S3 servers for Carga, without Docker.
#[derive(Debug, Parser)]
pub struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Manages a set of all four servers in the background.
    #[command(subcommand)]
    Services(ServicesTask),
    /// Installs missing Debian packages.
    Install {
        /// [default: the packages of the servers]
        packages: Vec<Package>,
    },
    /// Runs one private server until Ctrl-C, then removes it with all its data.
    Run { server: Single },
    /// Serves a directory as S3 until SIGTERM.
    S3 {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ServicesTask {
    /// Starts the set unless it is running, and prints Carga's settings for it as shell commands.
    Up {
        #[command(flatten)]
        location: Location,
        #[arg(long, value_enum, default_value_t)]
        s3: S3Kind,
    },
    /// Prints Carga's settings for the running set.
    Env(Location),
    /// Kills the set and removes its data.
    Down(Location),
}

#[derive(Debug, clap::Args)]
struct Location {
    /// The set's directory [default: target/services].
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Location {
    fn dir(self) -> PathBuf {
        self.dir
            .unwrap_or_else(|| paths::target_dir().join("services"))
    }
}

#[derive(Clone, Debug, clap::ValueEnum)]
enum Single {
    Postgres,
    Rabbit,
    Redis,
}

impl ServicesTask {
    async fn run(self) -> Result<()> {
        match self {
            Self::Up { location, s3 } => {
                let state = Services::up(&location.dir(), s3).await?;
                eprintln!("carga-testkit: {}", versions::describe(&state).await?);
                print(&state);
            }
            Self::Env(location) => print(&Services::find(&location.dir()).await?),
            Self::Down(location) => Services::down(&location.dir()).await?,
        }
        Ok(())
    }
}

impl Cli {
    pub async fn run(self) -> Result<()> {
        match self.command {
            Task::Services(task) => task.run().await?,
            Task::Install { packages } if packages.is_empty() => {
                packages::ensure_installed(&Package::SERVERS)?;
            }
            Task::Install { packages } => packages::ensure_installed(&packages)?,
            Task::Run { server } => run(server).await?,
            Task::S3 { port, dir } => {
                let files = s3::open(&dir).await?;
                s3::serve(s3::listen(port)?, files, s3::Key::default(), interrupted()?).await?
            }
        }
        Ok(())
    }
}

async fn run(server: Single) -> Result<()> {
    let interrupted = interrupted()?;
    // The handle keeps the server alive until the interrupt.
    let (_server, url): (Box<dyn Send>, String) = match server {
        Single::Postgres => {
            let postgres = Postgres::start().await?;
            let url = postgres.url("postgres");
            (Box::new(postgres), url)
        }
        Single::Rabbit => {
            let rabbit = Rabbit::start().await?;
            let url = rabbit.url();
            (Box::new(rabbit), url)
        }
        Single::Redis => {
            let redis = Redis::start().await?;
            let url = redis.url();
            (Box::new(redis), url)
        }
    };
    println!("{url}");
    interrupted.await;
    Ok(())
}

fn print(state: &State) {
    for (key, value) in state.env() {
        println!("export {key}={value}");
    }
}

fn interrupted() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}
