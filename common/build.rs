//! Embeds the migrations: for each dialect a Rust file with their versions, names and SQL, in the
//! order in which they are applied. `sqlx::migrate!` would do the same, but its macros would be
//! built with every driver, a second time.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // Read when the script runs: two checkouts that share a target directory share the script, too.
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let migrations = Path::new(&package).join("../migrations");
    println!("cargo:rerun-if-changed={}", migrations.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    for dialect in ["postgres", "sqlite"] {
        let list = embed(&migrations.join(dialect))?;
        fs::write(out.join(format!("{dialect}_migrations.rs")), list)?;
    }
    Ok(())
}

/// A slice of `(version, description, sql)` as Rust source.
fn embed(directory: &Path) -> io::Result<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let named = stem.split_once('_').and_then(|(version, description)| {
            let version = version.parse::<i64>().ok()?;
            Some((version, description.replace('_', " ")))
        });
        let (version, description) = named.ok_or_else(|| {
            io::Error::other(format!("{}: not named NNNN_title.sql", file.display()))
        })?;
        let path = file.canonicalize()?;
        list += &format!("    ({version}, {description:?}, include_str!({path:?})),\n");
    }
    list += "]\n";
    Ok(list)
}
