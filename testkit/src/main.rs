use carga_testkit::cli::Cli;
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Cli::parse().run().await
}
