//! Real data for tests. Nothing is generated in its place when it is missing.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::paths::{repository, target_dir};

/// Small files with what must come of each beside it.
pub fn directory() -> PathBuf {
    repository().join("fixtures")
}

const FLIGHTS_BYTES: u64 = 31_053_850;

/// Every flight that left New York City in 2013: 336,776 rows of 19 columns and a header, `NA` where a value is missing.
/// Unpacked once into the build directory.
pub fn flights() -> Result<PathBuf> {
    let unpacked = target_dir().join("fixtures/flights.csv");
    let is_complete = || fs::metadata(&unpacked).is_ok_and(|file| file.len() == FLIGHTS_BYTES);
    if is_complete() {
        return Ok(unpacked);
    }
    let packed = repository().join("testkit/fixtures/flights.csv.gz");
    fs::create_dir_all(target_dir().join("fixtures"))?;
    // Other test binaries unpack it at the same time, each into a file of its own.
    let draft = unpacked.with_extension(format!("{}-draft", uuid::Uuid::new_v4().simple()));
    let status = Command::new("gzip")
        .arg("-dc")
        .arg(&packed)
        .stdin(Stdio::null())
        .stdout(File::create(&draft)?)
        .status()
        .context("cannot run gzip")?;
    ensure!(
        status.success(),
        "gzip cannot unpack {} ({status})",
        packed.display()
    );
    let bytes = fs::metadata(&draft)?.len();
    if bytes != FLIGHTS_BYTES {
        fs::remove_file(&draft)?;
    }
    ensure!(
        bytes == FLIGHTS_BYTES,
        "{} holds {bytes} bytes instead of {FLIGHTS_BYTES}",
        packed.display()
    );
    fs::rename(&draft, &unpacked)?;
    Ok(unpacked)
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
