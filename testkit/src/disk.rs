//! A file system of a few mebibytes that a test can fill.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::home::Home;
use crate::mounts;

const BALLAST: &str = "ballast";
/// The unit in which a `tmpfs` allocates its space.
const PAGE: usize = 4096;

/// A private `tmpfs`, unmounted when this handle is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    /// Unmounts the disk when dropped.
    _home: Home,
}

impl SmallDisk {
    /// Mounts a disk of this size. Mounting requires root; the root of a user namespace suffices.
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
            "mounting a small disk requires root; otherwise run this test in a user namespace: \
             unshare --map-root-user --mount cargo test --workspace --test system -- disk",
        )?;
        Ok(Self { path, _home: home })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Occupies all the free space.
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

    /// Occupies this much of the space.
    pub fn occupy(&self, mebibytes: usize) -> Result<()> {
        fs::write(self.path.join(BALLAST), vec![0; mebibytes << 20]).context("occupying the disk")
    }

    /// Frees the space that [`fill`](Self::fill) or [`occupy`](Self::occupy) has occupied.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.path.join(BALLAST)).context("removing the ballast")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_disk_refuses_writes_and_a_dropped_one_is_removed() {
        let disk = SmallDisk::mount(1).unwrap();
        let path = disk.path().to_path_buf();
        disk.fill().unwrap();
        let error = fs::write(path.join("more"), [0; PAGE]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        disk.make_room().unwrap();
        fs::write(path.join("more"), [0; PAGE]).unwrap();
        drop(disk);
        assert!(!path.exists());
    }
}
