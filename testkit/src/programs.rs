//! The programs of the servers: those of Debian's packages, or those of another version in a
//! directory that an environment variable names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The programs of one server.
pub(crate) struct Programs {
    server: &'static str,
    /// The variable that names the directory.
    variable: &'static str,
    /// Where Debian's package has the program of this name.
    debian: fn(&str) -> Option<PathBuf>,
}

/// `postgres` and `initdb`. Debian's package is needed for every version: it makes the user
/// `postgres`, and brings the libraries that the programs of the Python package need.
pub(crate) const POSTGRES: Programs = Programs {
    server: "PostgreSQL",
    variable: "CARGA_TEST_POSTGRES_BIN",
    debian: |program| Some(newest_postgres()?.join(program)),
};

/// `rabbitmq-server` and `epmd`.
pub(crate) const RABBIT: Programs = Programs {
    server: "RabbitMQ",
    variable: "CARGA_TEST_RABBITMQ_BIN",
    debian: |program| match program {
        // The server's own script. Its namesake in `/usr/sbin` is a wrapper that changes the user.
        "rabbitmq-server" => existing(Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server")),
        _ => on_path(program),
    },
};

/// `redis-server`.
pub(crate) const REDIS: Programs = Programs {
    server: "Redis",
    variable: "CARGA_TEST_REDIS_BIN",
    debian: on_path,
};

impl Programs {
    pub(crate) fn path(&self, program: &str) -> Result<PathBuf> {
        let Some(directory) = self.directory() else {
            let path = (self.debian)(program);
            return path.with_context(|| format!("{} is not installed", self.server));
        };
        let path = directory.join(program);
        ensure!(
            path.exists(),
            "{}={}: the directory has no {program}",
            self.variable,
            directory.display()
        );
        Ok(path)
    }

    /// Whether Debian's package is needed and missing.
    pub(crate) fn lacks_package(&self, program: &str) -> bool {
        self.directory().is_none() && (self.debian)(program).is_none()
    }

    fn directory(&self) -> Option<PathBuf> {
        let value = std::env::var_os(self.variable)?;
        (!value.is_empty()).then(|| value.into())
    }
}

/// The directories that the variables name, by variable.
pub(crate) fn chosen() -> BTreeMap<String, PathBuf> {
    [&POSTGRES, &RABBIT, &REDIS]
        .into_iter()
        .filter_map(|programs| Some((programs.variable.to_owned(), programs.directory()?)))
        .collect()
}

/// The directory of the newest Postgres' programs, which is not on the `PATH` on Debian.
pub(crate) fn newest_postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let numbered = versions.filter_map(|entry| {
        let dir = entry.ok()?.path();
        let version: u32 = dir.file_name()?.to_str()?.parse().ok()?;
        let bin = dir.join("bin");
        bin.join("postgres").exists().then_some((version, bin))
    });
    numbered.max().map(|(_, bin)| bin)
}

/// The first program of this name in the directories of `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.exists())
}

fn existing(path: &Path) -> Option<PathBuf> {
    path.exists().then(|| path.to_path_buf())
}
