//! What an import costs, beside what people would do without Carga. `make bench` runs all of it.

mod arms;
mod chart;
mod compare;
mod data;
mod delay;
mod flat;
mod machine;
mod memory;
mod page_cache;
mod results;
mod rig;
mod scaling;

use anyhow::Result;
use carga_testkit::packages::{Package, ensure_installed};
use clap::{Parser, Subcommand};

use crate::compare::Comparisons;
use crate::results::Results;
use crate::rig::Rig;

/// Measures whole imports. Only ratios within one run mean anything: machines differ, and so does one machine from minute to
/// minute.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    /// What to measure [default: everything]
    #[command(subcommand)]
    what: Option<Part>,
    #[command(flatten)]
    comparisons: Comparisons,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Every arm in turns, for every shape and size of file
    Compare(Comparisons),
    /// A slow archive, several workers, several uploads at once
    Scaling,
    /// Time per row and memory from 100,000 rows to ten million
    Flat,
    /// Memory of one upload of 1 GiB, and of twenty uploads at once
    Memory,
    /// Draw the chart again from the results that are there
    Chart,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { what, comparisons } = Cli::parse();
    let mut results = Results::load()?;
    if !matches!(what, Some(Part::Chart)) {
        ensure_installed(&[Package::Sqlite, Package::Pgloader])?;
        let rig = Rig::start().await?;
        results.keep_only(machine::describe(&rig).await?);
        let measured = measure(&rig, what, &comparisons, &mut results).await;
        rig.stop().await?;
        measured?;
    }
    chart::write(&results)
}

async fn measure(
    rig: &Rig,
    what: Option<Part>,
    comparisons: &Comparisons,
    results: &mut Results,
) -> Result<()> {
    match what {
        Some(Part::Compare(chosen)) => compare::run(rig, &chosen, results).await,
        Some(Part::Scaling) => scaling::run(rig, results).await,
        Some(Part::Flat) => flat::run(rig, results).await,
        Some(Part::Memory) => memory::run(rig, results).await,
        Some(Part::Chart) => Ok(()),
        None => {
            compare::run(rig, comparisons, results).await?;
            scaling::run(rig, results).await?;
            flat::run(rig, results).await?;
            memory::run(rig, results).await
        }
    }
}
