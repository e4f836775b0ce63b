//! Every arm on every file, in turns: whatever the machine does in a minute, it does to all of them.

use anyhow::Result;

use crate::arms::{self, Arm, Run};
use crate::data::{DataFile, Shape, Size};
use crate::results::{ArmResult, Comparison, Results, Spread, rounded};
use crate::rig::{ByProcess, Carga, Rig};

/// An arm that is this many times slower than \copy takes part in two rounds that count, not in all.
const SLOW: f64 = 8.0;
const ROUNDS_OF_A_SLOW_ARM: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Comparisons {
    /// Rounds; the first does not count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::Flights, Shape::Narrow, Shape::Quoted, Shape::Wide])]
    shapes: Vec<Shape>,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Size::TenThousand, Size::HundredThousand, Size::Million])]
    sizes: Vec<Size>,
    /// Which arms; \copy into the landing table always takes part
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Arm::CopyTyped, Arm::Distributed, Arm::Embedded, Arm::Sqlite, Arm::Pgloader])]
    arms: Vec<Arm>,
}

pub(crate) async fn run(rig: &Rig, chosen: &Comparisons, results: &mut Results) -> Result<()> {
    for shape in &chosen.shapes {
        for size in &chosen.sizes {
            let file = DataFile::make(*shape, *size)?;
            // New ones for each file: a process keeps memory that an earlier file made it take.
            let carga = rig.carga(1, &[]).await?;
            let comparison = compare(rig, &carga, &file, chosen).await?;
            rig.clean().await?;
            print(&comparison);
            let same = |other: &Comparison| other.shape == *shape && other.rows == file.rows;
            results.comparisons.retain(|other| !same(other));
            results.comparisons.push(comparison);
            results.save()?;
        }
    }
    Ok(())
}

async fn compare(
    rig: &Rig,
    carga: &Carga,
    file: &DataFile,
    chosen: &Comparisons,
) -> Result<Comparison> {
    let mut arms = vec![Arm::CopyLanding];
    arms.extend(chosen.arms.iter().filter(|arm| **arm != Arm::CopyLanding));
    eprintln!("{:?}, {} rows, {} bytes", file.shape, file.rows, file.bytes);
    arms::encode(rig, carga, file).await?;
    let mut taken: Vec<Vec<(Run, f64)>> = arms.iter().map(|_| Vec::new()).collect();
    for round in 0..chosen.rounds {
        let mut copy_seconds = 0.0;
        for (arm, runs) in arms.iter().zip(&mut taken) {
            let is_slow = runs.last().is_some_and(|(_, ratio)| *ratio > SLOW);
            if is_slow && runs.len() > ROUNDS_OF_A_SLOW_ARM {
                continue;
            }
            let run = arm.run(rig, carga, file).await?;
            if *arm == Arm::CopyLanding {
                copy_seconds = run.seconds;
            }
            let ratio = run.seconds / copy_seconds;
            eprintln!(
                "  round {round}: {:<45} {:7.2} s {ratio:6.2}",
                arm.title(),
                run.seconds
            );
            runs.push((run, ratio));
        }
    }
    std::fs::remove_file(file.encoded())?;
    let arms = arms.into_iter().zip(taken);
    Ok(Comparison {
        shape: file.shape,
        rows: file.rows,
        bytes: file.bytes,
        columns: file.columns.len(),
        arms: arms.map(|(arm, runs)| summary(arm, &runs[1..])).collect(),
    })
}

fn summary(arm: Arm, runs: &[(Run, f64)]) -> ArmResult {
    let median = |of: &dyn Fn(&Run) -> Option<f64>| {
        rounded(Spread::of(runs.iter().filter_map(|(run, _)| of(run))).median)
    };
    let by_process = |of: fn(&Run) -> &ByProcess<f64>| {
        let names = runs.first().map(|(run, _)| of(run).keys());
        let median_of = |name: &String| {
            let median = median(&|run| of(run).get(name).copied());
            (name.clone(), median)
        };
        names.into_iter().flatten().map(median_of).collect()
    };
    let accepts = runs.iter().any(|(run, _)| run.accepted_seconds.is_some());
    ArmResult {
        arm,
        seconds: median(&|run| Some(run.seconds)),
        accepted_seconds: accepts.then(|| median(&|run| run.accepted_seconds)),
        ratio: Spread::of(runs.iter().map(|(_, ratio)| *ratio)).rounded(),
        cpu_seconds: by_process(|run| &run.cpu_seconds),
        peak_mib: by_process(|run| &run.peak_mib),
        rounds: runs.iter().map(|(run, _)| rounded(run.seconds)).collect(),
    }
}

/// A table for people, and for Markdown.
fn print(comparison: &Comparison) {
    let Comparison {
        shape,
        rows,
        bytes,
        columns,
        arms,
    } = comparison;
    let mib = *bytes as f64 / f64::from(1 << 20);
    println!("\n{shape:?}: {rows} rows, {columns} columns, {mib:.0} MiB\n");
    println!("| | seconds | to 202 | to `\\copy` | processor seconds | peak MiB |");
    println!("|---|---|---|---|---|---|");
    for arm in arms {
        let accepted = arm.accepted_seconds.map(|seconds| format!("{seconds:.2}"));
        let Spread {
            least,
            median,
            most,
        } = arm.ratio;
        println!(
            "| {} | {:.2} | {} | {median:.2} ({least:.2} to {most:.2}) | {} | {} |",
            arm.arm.title(),
            arm.seconds,
            accepted.unwrap_or_default(),
            listed(&arm.cpu_seconds, 1),
            listed(&arm.peak_mib, 0),
        );
    }
    println!();
}

pub(crate) fn listed(figures: &ByProcess<f64>, decimals: usize) -> String {
    let figures = figures.iter();
    let figures = figures.map(|(name, figure)| format!("{name} {figure:.decimals$}"));
    figures.collect::<Vec<_>>().join(", ")
}
