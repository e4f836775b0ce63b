//! Time per row and memory do not depend on how long a file is.

use anyhow::Result;

use crate::arms::{Arm, Run, encode};
use crate::compare::listed;
use crate::data::{DataFile, Shape, Size};
use crate::results::{Flat, Results, Spread, rounded};
use crate::rig::Rig;

const SIZES: [Size; 3] = [Size::HundredThousand, Size::Million, Size::TenMillion];
/// The first does not count. The longest file takes part in the last one only: it takes as long as all others together.
const ROUNDS: usize = 4;

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    results.flat.clear();
    let files = SIZES.map(|size| DataFile::make(Shape::Flights, size));
    let files = files.into_iter().collect::<Result<Vec<_>>>()?;
    println!("\n| | rows | µs per row | peak MiB |");
    println!("|---|---|---|---|");
    for arm in [Arm::CopyLanding, Arm::Distributed, Arm::Embedded] {
        let mut taken: Vec<Vec<Run>> = files.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            for ((file, size), runs) in files.iter().zip(SIZES).zip(&mut taken) {
                if size == Size::TenMillion && round < ROUNDS - 1 {
                    continue;
                }
                // New ones each time, which hold nothing of another size.
                let carga = rig.carga(1, &[]).await?;
                if arm == Arm::CopyLanding && !file.path.with_extension("copy").exists() {
                    encode(rig, &carga, file).await?;
                }
                let run = arm.run(rig, &carga, file).await?;
                if round > 0 {
                    runs.push(run);
                }
            }
        }
        rig.clean().await?;
        for (file, runs) in files.iter().zip(taken) {
            let flat = summary(arm, file, &runs);
            println!(
                "| {} | {} | {:.2} | {} |",
                arm.title(),
                file.rows,
                flat.microseconds_per_row,
                listed(&flat.peak_mib, 0)
            );
            results.flat.push(flat);
        }
        results.save()?;
    }
    for file in &files {
        std::fs::remove_file(file.path.with_extension("copy"))?;
    }
    Ok(())
}

fn summary(arm: Arm, file: &DataFile, runs: &[Run]) -> Flat {
    let per_row = |run: &Run| run.seconds * 1e6 / file.rows as f64;
    let last = runs.last();
    Flat {
        arm,
        rows: file.rows,
        microseconds_per_row: rounded(Spread::of(runs.iter().map(per_row)).median),
        peak_mib: last.map(|run| run.peak_mib.clone()).unwrap_or_default(),
    }
}
