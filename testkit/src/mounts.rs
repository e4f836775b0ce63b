//! The `mount` and `umount` commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Unmounts every file system below a directory, even one that is still in use.
pub(crate) fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.map(Path::new) {
        if point.starts_with(directory) {
            run(Command::new("umount").arg("--lazy").arg(point))?;
        }
    }
    Ok(())
}

/// Runs a command to its end. The error quotes what it wrote to standard error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}", reason.trim());
    }
    Ok(())
}
