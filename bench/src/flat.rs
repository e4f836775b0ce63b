//! Time per row and memory do not depend on how long a file is.

use anyhow::Result;

use crate::arms::{Arm, Run, encode};
use crate::compare::listed;
use crate::data::{DataFile, Shape, Size};
use crate::page_cache;
use crate::results::{Flat, Results, Spread};
use crate::rig::{ByProcess, Rig};

const ARMS: [Arm; 3] = [Arm::CopyLanding, Arm::Distributed, Arm::Embedded];
const SIZES: [Size; 3] = [Size::HundredThousand, Size::Million, Size::TenMillion];
/// The first does not count. The longest file takes part in the last ones only: it takes as long as all others together.
const ROUNDS: usize = 9;
const LONG_ROUNDS: usize = 2;

/// Everything measured of an arm on one size, with the time per row as a ratio to that of a million in the same round.
type Taken = Vec<(Run, f64)>;

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    let files = SIZES.map(|size| DataFile::make(Shape::Flights, size));
    let files = files.into_iter().collect::<Result<Vec<_>>>()?;
    let warm_up = DataFile::make(Shape::Flights, Size::TenThousand)?;
    for file in files.iter().chain([&warm_up]) {
        let carga = rig.carga(1, &[]).await?;
        encode(rig, &carga, file).await?;
    }
    let mut taken = ARMS.map(|_| SIZES.map(|_| Taken::new()));
    for round in 0..ROUNDS {
        for (arm, sizes) in ARMS.into_iter().zip(&mut taken) {
            let runs = one_round(rig, arm, &files, &warm_up, round).await?;
            let of_a_million = runs[1].as_ref().map_or(f64::NAN, per_row(&files[1]));
            for ((run, file), all) in runs.into_iter().zip(&files).zip(sizes) {
                let Some(run) = run else { continue };
                let ratio = per_row(file)(&run) / of_a_million;
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
    results.flat.clear();
    println!("\n| | rows | µs per row | to a million | peak MiB |");
    println!("|---|---|---|---|---|");
    for (arm, sizes) in ARMS.into_iter().zip(&taken) {
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
                listed(&flat.peak_mib, 0)
            );
            results.flat.push(flat);
        }
    }
    results.save()?;
    for file in files.iter().chain([&warm_up]) {
        std::fs::remove_file(file.encoded())?;
    }
    Ok(())
}

/// One import of each file, as far as it takes part.
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
        // Emptied before it is filled: the pages of the last import's tables would be free again otherwise.
        rig.clear().await?;
        page_cache::fill()?;
        // New ones each time, which hold nothing of another size.
        let carga = rig.carga(1, &[]).await?;
        // The filler took the place of programs and files too, and a service that waits for a file has its connections open.
        arm.run(rig, &carga, warm_up).await?;
        page_cache::read(&[&file.path, &file.encoded()])?;
        runs.push(Some(arm.run(rig, &carga, file).await?));
    }
    Ok(runs)
}

/// Microseconds.
fn per_row(file: &DataFile) -> impl Fn(&Run) -> f64 {
    let rows = file.rows as f64;
    move |run| run.seconds * 1e6 / rows
}

fn summary(arm: Arm, file: &DataFile, runs: &[(Run, f64)]) -> Flat {
    let times = runs.iter().map(|(run, _)| per_row(file)(run));
    // The largest of all rounds: a bound that held by chance is none.
    let mut peak_mib = ByProcess::new();
    for (name, mib) in runs.iter().flat_map(|(run, _)| &run.peak_mib) {
        let most: &mut f64 = peak_mib.entry(name.clone()).or_default();
        *most = most.max(*mib);
    }
    Flat {
        arm,
        rows: file.rows,
        microseconds_per_row: Spread::of(times).rounded().median,
        ratio: Spread::of(runs.iter().map(|(_, ratio)| *ratio)).rounded(),
        peak_mib,
    }
}
