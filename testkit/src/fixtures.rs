//! Real data for tests. A missing file is an error; nothing is generated in its place.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::paths::{repository, target_dir};

/// The directory of the small files, each beside its expected result.
pub fn directory() -> PathBuf {
    repository().join("fixtures")
}

const FLIGHTS_BYTES: u64 = 31_053_850;

/// Every flight that left New York City in 2013: a header and 336,776 rows of 19 columns. `NA`
/// stands for a missing value. The file is decompressed once into the build directory.
pub fn flights() -> Result<PathBuf> {
    let decompressed = target_dir().join("fixtures/flights.csv");
    let is_complete = || fs::metadata(&decompressed).is_ok_and(|file| file.len() == FLIGHTS_BYTES);
    if is_complete() {
        return Ok(decompressed);
    }
    let compressed = repository().join("testkit/fixtures/flights.csv.gz");
    fs::create_dir_all(target_dir().join("fixtures"))?;
    // Other test binaries may decompress it at the same time, each into its own draft.
    let draft = decompressed.with_extension(format!("{}-draft", uuid::Uuid::new_v4().simple()));
    let status = Command::new("gzip")
        .arg("-dc")
        .arg(&compressed)
        .stdin(Stdio::null())
        .stdout(File::create(&draft)?)
        .status()
        .context("cannot run gzip")?;
    ensure!(
        status.success(),
        "gzip cannot decompress {} ({status})",
        compressed.display()
    );
    let bytes = fs::metadata(&draft)?.len();
    if bytes != FLIGHTS_BYTES {
        fs::remove_file(&draft)?;
    }
    ensure!(
        bytes == FLIGHTS_BYTES,
        "{} decompresses to {bytes} bytes; expected {FLIGHTS_BYTES}",
        compressed.display()
    );
    fs::rename(&draft, &decompressed)?;
    Ok(decompressed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_flights_file_has_a_header_and_all_its_rows() {
        let flights = std::fs::read(super::flights().unwrap()).unwrap();
        assert!(flights.starts_with(b"year,month,day,dep_time"));
        assert_eq!(
            flights.iter().filter(|byte| **byte == b'\n').count(),
            336_777
        );
    }
}
