//! A file system of a few mebibytes, to see what happens when it is full.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::home::Home;
use crate::mounts;

const BALLAST: &str = "ballast";
/// What memory is given out in, and so this file system's room.
const PAGE: usize = 4096;

/// A `tmpfs` of its own, unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    /// Unmounts what is mounted in it before it removes itself.
    _home: Home,
}

impl SmallDisk {
    /// Mounting takes root; a user namespace has one of its own.
    pub fn mount(mebibytes: u32) -> Result<Self> {
        let home = Home::private("disk")?;
        let path = home.path().join("mounted");
        fs::create_dir(&path)?;
        let mounted = mounts::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={mebibytes}m,mode=755"))
                .arg("carga-test")
                .arg(&path),
        );
        mounted.context(
            "a disk to fill up takes root to mount; without it, run this test in a user namespace: \
             unshare --map-root-user --mount cargo test --workspace --test system -- disk",
        )?;
        Ok(Self { path, _home: home })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes up all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.path.join(BALLAST))?;
        loop {
            match ballast.write_all(&[0; PAGE]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("filling the disk"),
            }
        }
    }

    /// Takes up so much.
    pub fn occupy(&self, mebibytes: usize) -> Result<()> {
        fs::write(self.path.join(BALLAST), vec![0; mebibytes << 20]).context("loading the disk")
    }

    /// Gives back what [`fill`](Self::fill) or [`occupy`](Self::occupy) has taken.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.path.join(BALLAST)).context("removing the ballast")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_is_full_when_it_is_filled_and_gone_when_it_is_dropped() {
        let disk = SmallDisk::mount(1).unwrap();
        let path = disk.path().to_path_buf();
        disk.fill().unwrap();
        let refused = fs::write(path.join("more"), [0; PAGE]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        disk.make_room().unwrap();
        fs::write(path.join("more"), [0; PAGE]).unwrap();
        drop(disk);
        assert!(!path.exists());
    }
}
