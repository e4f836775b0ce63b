//! Free memory, put out of play.
//!
//! A virtual machine may have given its free memory back to its host, and gets it page by page when something is written: here a
//! gigabyte took about a second of processor time. An import that writes more than the others would be charged for that. So the
//! page cache is filled first: what is written then takes the place of something that was read long ago.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::statvfs;

use crate::data::directory;
use crate::machine;

const MIB: u64 = 1 << 20;
/// So much may stay free: the kernel keeps some in any case.
const FREE: u64 = 1024 * MIB;
/// Between two looks at how much is free.
const STEP: u64 = 256 * MIB;

/// Fills the page cache with a file as large as half the memory, which stays for the next time; not where that would take most of the
/// disk.
pub(crate) fn fill() -> Result<()> {
    let path = directory()?.join("filler");
    let size = machine::memory_bytes("MemTotal")? / 2;
    let room = statvfs(&directory()?)?;
    if !path.exists() && room.f_bavail * room.f_frsize < 3 * size {
        eprintln!(
            "the disk has no room for a file that fills the page cache; long files may seem slower than they are"
        );
        return Ok(());
    }
    let mut piece = vec![0; MIB as usize];
    if !path.exists() {
        // A run that is broken off leaves no file that is too short.
        let draft = path.with_extension("draft");
        let mut file = File::create(&draft)?;
        for _ in 0..size / MIB {
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        fs::rename(draft, &path)?;
    }
    let mut file = File::open(&path)?;
    for step in 0..size / MIB {
        if step % (STEP / MIB) == 0 && machine::memory_bytes("MemFree")? < FREE {
            break;
        }
        file.read_exact(&mut piece)?;
    }
    Ok(())
}

/// Brings back files that the filler took the place of.
pub(crate) fn read(files: &[&Path]) -> Result<()> {
    for file in files {
        std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    }
    Ok(())
}

/// Gives the disk back.
pub(crate) fn remove() -> Result<()> {
    match fs::remove_file(directory()?.join("filler")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("cannot remove the filler")
        }
        _ => Ok(()),
    }
}
