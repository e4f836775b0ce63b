//! Batches are archived with the compression that the settings name.

use std::io::Read;

use anyhow::{Result, bail, ensure};
use carga_common::archive::Manifest;
use carga_testkit::eventually;
use flate2::read::GzDecoder;
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    compressed_objects_have_the_content_of_plain_ones_until_the_undo,
}

async fn compressed_objects_have_the_content_of_plain_ones_until_the_undo(
    mode: Mode,
) -> Result<()> {
    let plain = archive_and_undo(mode, "none", "").await?;
    ensure!(plain.len() == 3 && plain.iter().all(|object| object.starts_with(b"[\n{")));
    for (compression, suffix) in [("gzip", ".gz"), ("zstd", ".zst")] {
        let found = archive_and_undo(mode, compression, suffix).await?;
        ensure!(found == plain, "other content with {compression}");
    }
    Ok(())
}

/// Imports a file and undoes the upload. Fails unless the upload has exactly the objects that its
/// manifest names, and none after the undo. Returns the decompressed objects.
async fn archive_and_undo(mode: Mode, compression: &str, suffix: &str) -> Result<Vec<Vec<u8>>> {
    const ROWS: usize = 2500;
    let harness = mode
        .harness()
        .await?
        .with("CARGA_ARCHIVE_COMPRESSION", compression)
        .with("CARGA_SWEEP_MS", "500");
    let app = App::start(harness, 2).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(ROWS)).await?.status() == 202);
    app.expect_completed(id, ROWS as i64).await?;

    let manifest_key = format!("uploads/{id}/manifest.json");
    let manifest = app.harness.object(&manifest_key).await?;
    let manifest: Manifest = serde_json::from_slice(&manifest)?;
    let mut keys = Vec::new();
    let mut contents = Vec::new();
    for (batch, number) in manifest.batches.iter().zip(1..) {
        let key = format!("uploads/{id}/batch-{number:06}.json{suffix}");
        ensure!(batch.key == key, "{batch:?} instead of {key}");
        let object = app.harness.object(&key).await?;
        ensure!(batch.bytes == object.len() as u64, "{batch:?}");
        let crc32 = crc32fast::hash(&object);
        ensure!(batch.crc32 == format!("{crc32:08x}"), "{batch:?}");
        let content = decompress(&object, compression)?;
        ensure!(compression == "none" || object.len() < content.len() / 2);
        contents.push(content);
        keys.push(key);
    }
    keys.push(manifest_key);
    let objects = app.harness.objects().await?;
    ensure!(objects == keys, "{objects:?}");

    let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    ensure!(undo.send().await?.status() == 202);
    eventually(TIMEOUT, "the objects to be deleted", async || {
        let objects = app.harness.objects().await;
        objects.is_ok_and(|objects| objects.is_empty())
    })
    .await?;
    app.close().await?;
    Ok(contents)
}

fn decompress(object: &[u8], compression: &str) -> Result<Vec<u8>> {
    Ok(match compression {
        "none" => object.to_vec(),
        "gzip" => {
            let mut content = Vec::new();
            GzDecoder::new(object).read_to_end(&mut content)?;
            content
        }
        "zstd" => zstd::decode_all(object)?,
        _ => bail!("{compression} is unknown"),
    })
}
