//! The paths of the repository, its build directory and its programs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The checkout that this crate was built from.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Cargo's build directory: `CARGO_TARGET_DIR`, else `target` in the repository.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        // Cargo resolves a relative path against its working directory, which the Makefile sets to
        // the repository.
        Some(dir) if !dir.is_empty() => repository().join(dir),
        _ => repository().join("target"),
    }
}

/// The path of a program of this workspace, beside the running program. That is a test
/// (`target/<profile>/deps/<test>`) or another program (`target/<profile>/<program>`).
pub(crate) fn workspace_binary(name: &str) -> Result<PathBuf> {
    let running = env::current_exe().context("cannot find the path of the running program")?;
    for dir in running.ancestors().skip(1).take(2) {
        let candidate = dir.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!(
        "{name} is not beside {}; run `cargo build --workspace --bins` first",
        running.display()
    )
}
