//! Runs all arms on every file in turns, so that a slow minute of the machine affects all arms.

use anyhow::Result;

use crate::arms::{self, Arm, Run};
use crate::compression::Compression;
use crate::data::{DataFile, Shape, Size};
use crate::results::{ArmResult, Comparison, Results, Spread, rounded};
use crate::rig::{ByProcess, Carga, Rig};

/// An arm slower than this multiple of `\copy` takes part in two counted rounds only.
const SLOW_RATIO: f64 = 8.0;
const COUNTED_ROUNDS_OF_A_SLOW_ARM: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Comparisons {
    /// Number of rounds; the first is not counted
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::Flights, Shape::Narrow, Shape::Quoted, Shape::Wide])]
    shapes: Vec<Shape>,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Size::TenThousand, Size::HundredThousand, Size::Million])]
    sizes: Vec<Size>,
    /// The arms; \copy into the landing table always takes part
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Arm::CopyTyped, Arm::CopyBinary, Arm::Distributed, Arm::DistributedTyped, Arm::FewViolations, Arm::ManyViolations, Arm::UpdateHalf, Arm::ImportTyped, Arm::ImportTypedSqlite, Arm::Embedded, Arm::Sqlite, Arm::Pgloader])]
    arms: Vec<Arm>,
    /// The compression of the archived batches
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
}

pub(crate) async fn run(rig: &Rig, chosen: &Comparisons, results: &mut Results) -> Result<()> {
    let compression = chosen.compression;
    let settings = [("CARGA_ARCHIVE_COMPRESSION", compression.name())];
    for shape in &chosen.shapes {
        for size in &chosen.sizes {
            let file = DataFile::make(*shape, *size)?;
            // New processes for each file: a process keeps the memory that an earlier file needed.
            let carga = rig.carga(1, &settings).await?;
            let comparison = compare(rig, &carga, &file, chosen).await?;
            rig.clean().await?;
            print(&comparison);
            let is_same = |other: &Comparison| {
                other.shape == *shape && other.rows == file.rows && other.compression == compression
            };
            results.comparisons.retain(|other| !is_same(other));
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
    let has_binary = arms.contains(&Arm::CopyBinary);
    if has_binary {
        arms::encode_binary(rig, file).await?;
    }
    let mut runs_by_arm: Vec<Vec<(Run, f64)>> = arms.iter().map(|_| Vec::new()).collect();
    for round in 0..chosen.rounds {
        let mut copy_seconds = 0.0;
        for (arm, runs) in arms.iter().zip(&mut runs_by_arm) {
            let is_slow = runs.last().is_some_and(|(_, ratio)| *ratio > SLOW_RATIO);
            if is_slow && runs.len() > COUNTED_ROUNDS_OF_A_SLOW_ARM {
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
    if has_binary {
        std::fs::remove_file(file.binary())?;
    }
    let arms = arms.into_iter().zip(runs_by_arm);
    Ok(Comparison {
        shape: file.shape,
        rows: file.rows,
        bytes: file.bytes,
        columns: file.columns.len(),
        compression: chosen.compression,
        arms: arms.map(|(arm, runs)| summary(arm, &runs[1..])).collect(),
    })
}

fn summary(arm: Arm, runs: &[(Run, f64)]) -> ArmResult {
    let median = |figure: &dyn Fn(&Run) -> Option<f64>| {
        rounded(Spread::of(runs.iter().filter_map(|(run, _)| figure(run))).median)
    };
    let by_process = |figures: fn(&Run) -> &ByProcess<f64>| {
        let names = runs.first().map(|(run, _)| figures(run).keys());
        let median_of = |name: &String| {
            let median = median(&|run| figures(run).get(name).copied());
            (name.clone(), median)
        };
        names.into_iter().flatten().map(median_of).collect()
    };
    let has_accepted = runs.iter().any(|(run, _)| run.accepted_seconds.is_some());
    ArmResult {
        arm,
        seconds: median(&|run| Some(run.seconds)),
        accepted_seconds: has_accepted.then(|| median(&|run| run.accepted_seconds)),
        ratio: Spread::of(runs.iter().map(|(_, ratio)| *ratio)).rounded(),
        cpu_seconds: by_process(|run| &run.cpu_seconds),
        peak_mib: by_process(|run| &run.peak_mib),
        rounds: runs.iter().map(|(run, _)| rounded(run.seconds)).collect(),
    }
}

/// Prints a comparison as a Markdown table.
fn print(comparison: &Comparison) {
    let Comparison {
        shape,
        rows,
        bytes,
        columns,
        compression,
        arms,
    } = comparison;
    let mib = *bytes as f64 / f64::from(1 << 20);
    println!("\n{shape:?}: {rows} rows, {columns} columns, {mib:.0} MiB");
    println!("Compression of the archive: {}\n", compression.name());
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
            list(&arm.cpu_seconds, 1),
            list(&arm.peak_mib, 0),
        );
    }
    println!();
}

/// Formats figures as `name figure, name figure`.
pub(crate) fn list(figures: &ByProcess<f64>, decimals: usize) -> String {
    let figures = figures.iter();
    let figures = figures.map(|(name, figure)| format!("{name} {figure:.decimals$}"));
    figures.collect::<Vec<_>>().join(", ")
}
