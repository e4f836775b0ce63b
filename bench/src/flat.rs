//! Measures whether time per row and memory depend on the length of a file.

use anyhow::Result;

use crate::arms::{Arm, Run, encode};
use crate::compare::list;
use crate::data::{DataFile, Shape, Size};
use crate::page_cache;
use crate::results::{Flat, Results, Spread};
use crate::rig::{ByProcess, Rig};

const ARMS: [Arm; 3] = [Arm::CopyLanding, Arm::Distributed, Arm::Embedded];
const SIZES: [Size; 3] = [Size::HundredThousand, Size::Million, Size::TenMillion];
/// The first round is not counted. The longest file takes part in the last rounds only, because it
/// takes as long as all others together.
const ROUNDS: usize = 9;
const LONG_ROUNDS: usize = 2;

/// The runs of an arm on one size. Each has the ratio of its time per row to that of a million rows
/// in the same round.
type Runs = Vec<(Run, f64)>;

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    let files = SIZES.map(|size| DataFile::make(Shape::Flights, size));
    let files = files.into_iter().collect::<Result<Vec<_>>>()?;
    let warm_up = DataFile::make(Shape::Flights, Size::TenThousand)?;
    for file in files.iter().chain([&warm_up]) {
        let carga = rig.carga(1, &[]).await?;
        encode(rig, &carga, file).await?;
    }
    let mut runs_by_arm = ARMS.map(|_| SIZES.map(|_| Runs::new()));
    for round in 0..ROUNDS {
        for (arm, sizes) in ARMS.into_iter().zip(&mut runs_by_arm) {
            let runs = one_round(rig, arm, &files, &warm_up, round).await?;
            let million_row_time = runs[1].as_ref().map_or(f64::NAN, per_row(&files[1]));
            for ((run, file), all) in runs.into_iter().zip(&files).zip(sizes) {
                let Some(run) = run else { continue };
                let ratio = per_row(file)(&run) / million_row_time;
                eprintln!(
                    "  round {round}: {}, {} rows: {:.2} µs per row, {ratio:.2}",
                    arm.title(),
                    file.rows,
                    per_row(file)(&run)
                );
                if round > 0 {
                    all.push((run, ratio));
                }
            }
        }
        rig.clean().await?;
    }
    page_cache::remove()?;
    report(results, &files, &runs_by_arm)?;
    for file in files.iter().chain([&warm_up]) {
        std::fs::remove_file(file.encoded())?;
    }
    Ok(())
}

/// Prints a Markdown table of the runs and stores their results.
fn report(
    results: &mut Results,
    files: &[DataFile],
    runs_by_arm: &[[Runs; SIZES.len()]],
) -> Result<()> {
    results.flat.clear();
    println!("\n| | rows | µs per row | ratio to a million rows | peak MiB |");
    println!("|---|---|---|---|---|");
    for (arm, sizes) in ARMS.into_iter().zip(runs_by_arm) {
        for (file, runs) in files.iter().zip(sizes) {
            let flat = summary(arm, file, runs);
            let Spread {
                least,
                median,
                most,
            } = flat.ratio;
            println!(
                "| {} | {} | {:.2} | {median:.2} ({least:.2} to {most:.2}) | {} |",
                arm.title(),
                file.rows,
                flat.microseconds_per_row,
                list(&flat.peak_mib, 0)
            );
            results.flat.push(flat);
        }
    }
    results.save()
}

/// Runs one import of each file that takes part in this round.
async fn one_round(
    rig: &Rig,
    arm: Arm,
    files: &[DataFile],
    warm_up: &DataFile,
    round: usize,
) -> Result<Vec<Option<Run>>> {
    let mut runs = Vec::new();
    for (file, size) in files.iter().zip(SIZES) {
        if size == Size::TenMillion && round < ROUNDS - LONG_ROUNDS {
            runs.push(None);
            continue;
        }
        // The tables are emptied before the page cache is filled, because emptying them frees
        // pages.
        rig.clear().await?;
        page_cache::fill()?;
        // New processes each time, which hold no memory from another size.
        let carga = rig.carga(1, &[]).await?;
        // `page_cache::fill` also evicted the programs and this file. This run, which is not
        // counted, reads the programs again and opens their connections, as in a service that waits
        // for a file.
        arm.run(rig, &carga, warm_up).await?;
        page_cache::read(&[&file.path, &file.encoded()])?;
        runs.push(Some(arm.run(rig, &carga, file).await?));
    }
    Ok(runs)
}

/// The microseconds per row of a run.
fn per_row(file: &DataFile) -> impl Fn(&Run) -> f64 {
    let rows = file.rows as f64;
    move |run| run.seconds * 1e6 / rows
}

fn summary(arm: Arm, file: &DataFile, runs: &[(Run, f64)]) -> Flat {
    let times = runs.iter().map(|(run, _)| per_row(file)(run));
    // The maximum of all rounds, because an upper bound must hold in every round.
    let mut peak_mib = ByProcess::new();
    for (name, mib) in runs.iter().flat_map(|(run, _)| &run.peak_mib) {
        let peak: &mut f64 = peak_mib.entry(name.clone()).or_default();
        *peak = peak.max(*mib);
    }
    Flat {
        arm,
        rows: file.rows,
        microseconds_per_row: Spread::of(times).rounded().median,
        ratio: Spread::of(runs.iter().map(|(_, ratio)| *ratio)).rounded(),
        peak_mib,
    }
}
