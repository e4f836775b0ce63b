//! The memory of long uploads, long rows and twenty concurrent uploads.

use anyhow::Result;
use carga_testkit::Usage;
use futures::future::try_join_all;

use crate::compare::list;
use crate::data::DataFile;
use crate::results::{Memory, Results};
use crate::rig::{Rig, mib};
use crate::upload::{Block, send};

const MIB: u64 = 1 << 20;
const CONCURRENT: u32 = 20;
const LONG_ROWS: &str = "one upload of 256 MiB, 6 kB per row";

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    results.memory.clear();
    println!("\n| | API growth, MiB | peak MiB |");
    println!("|---|---|---|");
    let file = DataFile::flights_once()?;
    for what in ["one upload of 1 GiB", LONG_ROWS, "twenty uploads at once"] {
        rig.clear().await?;
        let carga = rig.carga(1, &[]).await?;
        let Usage {
            peak_rss_bytes: before,
            ..
        } = carga.api.id().usage();
        let bytes = match what {
            "one upload of 1 GiB" => {
                let block = Block::flights(&file)?;
                send(&carga, block, 1024 * MIB).await?.bytes
            }
            LONG_ROWS => send(&carga, Block::long_rows(), 256 * MIB).await?.bytes,
            _ => {
                try_join_all((0..CONCURRENT).map(|_| carga.import(&file, CONCURRENT))).await?;
                u64::from(CONCURRENT) * file.bytes
            }
        };
        let Usage {
            peak_rss_bytes: after,
            ..
        } = carga.api.id().usage();
        let memory = Memory {
            what: what.to_owned(),
            bytes,
            api_growth_mib: mib(after - before),
            peak_mib: carga.peak_mib(),
        };
        println!(
            "| {what} | {:.0} | {} |",
            memory.api_growth_mib,
            list(&memory.peak_mib, 0)
        );
        results.memory.push(memory);
        results.save()?;
    }
    rig.clean().await
}
