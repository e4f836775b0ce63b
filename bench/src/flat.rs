//! Time per row and memory do not depend on how long a file is.

use anyhow::Result;

use crate::arms::{Arm, Run};
use crate::compare::listed;
use crate::data::{DataFile, Shape, Size};
use crate::results::{Flat, Results, Spread, rounded};
use crate::rig::Rig;

/// How often each size is taken; the longest takes a minute or more.
const ROUNDS: [(Size, usize); 3] = [
    (Size::HundredThousand, 3),
    (Size::Million, 3),
    (Size::TenMillion, 1),
];

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    results.flat.clear();
    println!("\n| | rows | µs per row | peak MiB |");
    println!("|---|---|---|---|");
    for arm in [Arm::CopyLanding, Arm::Distributed, Arm::Embedded] {
        // What holds nothing of an earlier size.
        for (size, rounds) in ROUNDS {
            let carga = rig.carga(1, &[]).await?;
            let file = DataFile::make(Shape::Flights, size)?;
            if arm == Arm::CopyLanding {
                crate::arms::encode(rig, &carga, &file).await?;
            }
            let mut runs: Vec<Run> = Vec::new();
            for _ in 0..rounds {
                runs.push(arm.run(rig, &carga, &file).await?);
            }
            let per_row = |run: &Run| run.seconds * 1e6 / file.rows as f64;
            let flat = Flat {
                arm,
                rows: file.rows,
                microseconds_per_row: rounded(Spread::of(runs.iter().map(per_row)).median),
                peak_mib: runs.pop().map(|run| run.peak_mib).unwrap_or_default(),
            };
            println!(
                "| {} | {} | {:.2} | {} |",
                arm.title(),
                file.rows,
                flat.microseconds_per_row,
                listed(&flat.peak_mib, 0)
            );
            results.flat.push(flat);
            results.save()?;
            rig.clean().await?;
        }
    }
    for (size, _) in ROUNDS {
        let file = DataFile::make(Shape::Flights, size)?;
        std::fs::remove_file(file.path.with_extension("copy"))?;
    }
    Ok(())
}
