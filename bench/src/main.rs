//! Measures whole imports, by Carga and by the tools that people use without it. `make bench` runs
//! everything.

mod arms;
mod chart;
mod compare;
mod compression;
mod data;
mod dataset;
mod delay;
mod export;
mod flat;
mod machine;
mod memory;
mod page_cache;
mod results;
mod rig;
mod scaling;
mod upload;

use anyhow::Result;
use carga_testkit::packages::{Package, ensure_installed};
use clap::{Parser, Subcommand};

use crate::compare::Comparisons;
use crate::results::Results;
use crate::rig::Rig;

/// Measures whole imports. Compare only ratios within one run: the speed of a machine changes from
/// minute to minute.
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
    /// All arms in turns, for every shape and size of file
    Compare(Comparisons),
    /// Throughput with a slow archive, several workers, or concurrent uploads
    Scaling,
    /// Time per row and memory from 100,000 rows to ten million
    Flat,
    /// Memory of one upload of 1 GiB, of long rows, and of twenty concurrent uploads
    Memory,
    /// Memory of downloads of ten million rows
    Export,
    /// Redraws the chart from the stored results
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
        Some(Part::Export) => export::run(rig, results).await,
        Some(Part::Chart) => Ok(()),
        None => {
            compare::run(rig, comparisons, results).await?;
            scaling::run(rig, results).await?;
            flat::run(rig, results).await?;
            memory::run(rig, results).await?;
            export::run(rig, results).await
        }
    }
}
