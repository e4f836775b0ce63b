//! Fills the page cache, so that the cost of fresh memory does not distort a measurement.
//!
//! A virtual machine may have returned its free memory to its host. It then gets the memory back
//! page by page as files are written, which took about a second of processor time per gigabyte
//! here. An import that writes more than others would be charged for that. After the cache has been
//! filled, writes reuse pages that were read long ago.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::statvfs;

use crate::data::directory;
use crate::machine;

const MIB: u64 = 1 << 20;
/// Filling stops at this much free memory, because the kernel always keeps some.
const MIN_FREE: u64 = 1024 * MIB;
/// The number of bytes read between two checks of the free memory.
const CHECK_INTERVAL: u64 = 256 * MIB;

/// Fills the page cache with a file as large as half the memory. The file is kept for the next
/// time. Does nothing if a new file would take more than a third of the free disk space.
pub(crate) fn fill() -> Result<()> {
    let path = directory()?.join("filler");
    let size = machine::memory_bytes("MemTotal")? / 2;
    let disk = statvfs(&directory()?)?;
    if !path.exists() && disk.f_bavail * disk.f_frsize < 3 * size {
        eprintln!(
            "too little disk space to fill the page cache; the times of long files may be too high"
        );
        return Ok(());
    }
    let mut piece = vec![0; MIB as usize];
    if !path.exists() {
        // Renamed at the end, so that an interrupted run leaves no short file.
        let draft = path.with_extension("draft");
        let mut file = File::create(&draft)?;
        for _ in 0..size / MIB {
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        fs::rename(draft, &path)?;
    }
    let mut file = File::open(&path)?;
    for piece_number in 0..size / MIB {
        if piece_number % (CHECK_INTERVAL / MIB) == 0
            && machine::memory_bytes("MemFree")? < MIN_FREE
        {
            break;
        }
        file.read_exact(&mut piece)?;
    }
    Ok(())
}

/// Reads files back into the page cache after the filler has evicted them.
pub(crate) fn read(files: &[&Path]) -> Result<()> {
    for file in files {
        std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    }
    Ok(())
}

/// Removes the filler file.
pub(crate) fn remove() -> Result<()> {
    match fs::remove_file(directory()?.join("filler")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("cannot remove the filler")
        }
        _ => Ok(()),
    }
}
