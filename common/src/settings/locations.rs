//! Where the data of the four ports is. The scheme of a URL selects the adapter; for `carga`, an
//! unset URL means a file in its data directory.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf, absolute};

use super::mode::Mode;
use super::reader::Reader;
use super::secret::SecretUrl;

/// Where the store's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// `postgres:`
    Postgres(SecretUrl),
    /// `sqlite:`
    Sqlite(PathBuf),
}

/// Where the queue's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueLocation {
    /// `amqp:` or `amqps:`
    Rabbit(SecretUrl),
    /// `sqlite:`
    Sqlite(PathBuf),
}

/// Where the live counters' data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgressLocation {
    /// `redis:` or `rediss:`
    Redis(SecretUrl),
    /// `sqlite:`
    Sqlite(PathBuf),
}

/// Where the archive's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveLocation {
    /// `s3://bucket/prefix`
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix in the bucket, without slashes at its ends.
        prefix: String,
    },
    /// `file:///directory`
    Directory(PathBuf),
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => url.fmt(f),
            Self::Sqlite(file) => file.display().fmt(f),
        }
    }
}

impl fmt::Display for ArchiveLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Directory(directory) => directory.display().fmt(f),
        }
    }
}

/// Where the data of all four ports is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locations {
    /// `DATABASE_URL`
    pub store: StoreLocation,
    /// `AMQP_URL`
    pub queue: QueueLocation,
    /// `REDIS_URL`
    pub progress: ProgressLocation,
    /// `ARCHIVE_URL`
    pub archive: ArchiveLocation,
    /// `CARGA_DATA_DIR`, if a port has its data there.
    pub data_dir: Option<PathBuf>,
}

/// The value of a variable: a server's URL, or the path of an embedded adapter.
enum Target {
    Server(SecretUrl),
    File(PathBuf),
}

impl Locations {
    /// Whether a path is directly in the data directory, after following symbolic links.
    pub fn is_in_data_dir(&self, path: &Path) -> bool {
        let data_dir = self.data_dir.as_deref();
        data_dir.is_some_and(|data_dir| is_in(data_dir, path))
    }

    pub(super) fn read(reader: &mut Reader<'_>, mode: Mode) -> Self {
        let data_dir = PathBuf::from(reader.text("CARGA_DATA_DIR", "carga-data"));
        let mut finder = Finder {
            reader,
            mode,
            data_dir: &data_dir,
            used: false,
        };
        let store = match finder.locate(&DATABASE) {
            Target::Server(url) => StoreLocation::Postgres(url),
            Target::File(file) => StoreLocation::Sqlite(file),
        };
        let queue = match finder.locate(&QUEUE) {
            Target::Server(url) => QueueLocation::Rabbit(url),
            Target::File(file) => QueueLocation::Sqlite(file),
        };
        let progress = match finder.locate(&PROGRESS) {
            Target::Server(url) => ProgressLocation::Redis(url),
            Target::File(file) => ProgressLocation::Sqlite(file),
        };
        let archive = match finder.locate(&ARCHIVE) {
            Target::Server(url) => bucket(finder.reader, &url),
            Target::File(directory) => ArchiveLocation::Directory(directory),
        };
        let used = finder.used;
        Self {
            store,
            queue,
            progress,
            archive,
            data_dir: used.then_some(data_dir),
        }
    }
}

/// The variable of a port, and its valid values.
struct Variable {
    name: &'static str,
    servers: &'static [&'static str],
    example: &'static str,
    /// The server's adapter, and whether this build has it.
    adapter: (&'static str, bool),
    /// The variable for a password that would need escapes in a URL.
    password: Option<&'static str>,
    /// The scheme of the embedded adapter.
    embedded: &'static str,
    /// The default file name in the data directory.
    default: &'static str,
}

const DATABASE: Variable = Variable {
    name: "DATABASE_URL",
    servers: &["postgres", "postgresql"],
    example: "postgres://carga:carga@localhost/carga",
    adapter: ("Postgres", cfg!(feature = "postgres")),
    password: Some("DATABASE_PASSWORD"),
    embedded: "sqlite",
    default: "carga.db",
};
const QUEUE: Variable = Variable {
    name: "AMQP_URL",
    servers: &["amqp", "amqps"],
    example: "amqp://carga:carga@localhost/%2f",
    adapter: ("RabbitMQ", cfg!(feature = "rabbit")),
    password: Some("AMQP_PASSWORD"),
    embedded: "sqlite",
    default: "queue.db",
};
const PROGRESS: Variable = Variable {
    name: "REDIS_URL",
    servers: &["redis", "rediss"],
    example: "redis://localhost",
    adapter: ("Redis", cfg!(feature = "redis")),
    password: Some("REDIS_PASSWORD"),
    embedded: "sqlite",
    default: "progress.db",
};
const ARCHIVE: Variable = Variable {
    name: "ARCHIVE_URL",
    servers: &["s3"],
    example: "s3://bucket/prefix",
    adapter: ("S3", cfg!(feature = "s3")),
    password: None,
    embedded: "file",
    default: "archive",
};

struct Finder<'a, 'b> {
    reader: &'a mut Reader<'b>,
    mode: Mode,
    data_dir: &'a Path,
    /// Whether a port has its data in the data directory.
    used: bool,
}

impl Finder<'_, '_> {
    /// Locates the data of a port. After a fault it returns the default, so that the faults of the
    /// other ports are found too.
    fn locate(&mut self, variable: &Variable) -> Target {
        let Some(url) = self.reader.secret(variable.name) else {
            return self.unset(variable);
        };
        if variable.servers.contains(&url.scheme()) {
            return Target::Server(self.server(variable, url));
        }
        if url.scheme() == variable.embedded {
            return self.embedded(variable, &url);
        }
        let Variable { name, example, .. } = variable;
        let mut schemes = variable.servers.to_vec();
        schemes.push(variable.embedded);
        self.reader.fault(format!(
            "{name}={url}: the scheme must be `{}`; example: {example}",
            schemes.join("` or `")
        ));
        Target::File(self.default(variable))
    }

    /// A server's URL, with the password from its separate variable.
    fn server(&mut self, variable: &Variable, url: SecretUrl) -> SecretUrl {
        let name = variable.name;
        let (adapter, is_built) = variable.adapter;
        if !is_built {
            self.reader.fault(format!(
                "{name}={url}: this build has no {adapter} adapter; rebuild with --features servers"
            ));
        }
        let Some(password_name) = variable.password else {
            return url;
        };
        if !url.has_valid_authority() {
            self.reader.fault(format!(
                "{name}={url}: malformed host or port; write `/`, `#` and `?` in a password as %2F, %23 and %3F, or set {password_name}"
            ));
        }
        match self.reader.password(password_name) {
            Some(password) => url.with_password(&password),
            None => url,
        }
    }

    fn default(&self, variable: &Variable) -> PathBuf {
        self.data_dir.join(variable.default)
    }

    /// An unset variable means the embedded adapter, or a fault.
    fn unset(&mut self, variable: &Variable) -> Target {
        let Variable { name, example, .. } = variable;
        let default = self.default(variable);
        match self.mode {
            Mode::Embedded => {
                self.used = true;
                self.reader.record(name, variable.url_of(&default), false);
            }
            Mode::Distributed => {
                let fault = format!("{name} is not set; example: {name}={example}");
                self.reader.fault(fault);
            }
        }
        Target::File(default)
    }

    /// A URL of the embedded adapter.
    fn embedded(&mut self, variable: &Variable, url: &SecretUrl) -> Target {
        if let Some(path) = path(url, variable.embedded) {
            // A process must lock the data directory if it uses a file in it.
            self.used |= is_in(self.data_dir, &path);
            return Target::File(path);
        }
        let name = variable.name;
        let (missing, example) = match variable.embedded {
            "file" => ("an absolute directory", "file:///srv/archive"),
            _ => ("a file", "sqlite:///srv/carga.db"),
        };
        self.reader.fault(format!(
            "{name}={url}: must name {missing}; example: {name}={example}"
        ));
        Target::File(self.default(variable))
    }
}

impl Variable {
    /// The URL of this path. A `file:` URL is always absolute.
    fn url_of(&self, path: &Path) -> String {
        match absolute(path) {
            Ok(absolute) if self.embedded == "file" => format!("file://{}", absolute.display()),
            _ => format!("{}:{}", self.embedded, path.display()),
        }
    }
}

/// Parses `sqlite:relative`, `sqlite://relative` and `sqlite:///absolute`. The path of a `file:`
/// URL must be absolute.
fn path(url: &SecretUrl, scheme: &str) -> Option<PathBuf> {
    let rest = url.expose().strip_prefix(scheme)?.strip_prefix(':')?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let is_path = !rest.is_empty() && !rest.starts_with(':') && !rest.contains('?');
    let path = PathBuf::from(rest);
    (is_path && (scheme != "file" || path.is_absolute())).then_some(path)
}

fn is_in(directory: &Path, path: &Path) -> bool {
    // A path that does not exist yet cannot be resolved and has no links.
    let real = |path: &Path| fs::canonicalize(path).or_else(|_| absolute(path)).ok();
    let parent = path.parent().map(|parent| match parent.as_os_str() {
        name if name.is_empty() => Path::new("."),
        _ => parent,
    });
    parent.and_then(real) == real(directory)
}

fn bucket(reader: &mut Reader<'_>, url: &SecretUrl) -> ArchiveLocation {
    let location = url.expose().trim_start_matches("s3://");
    let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
    if bucket.is_empty() {
        reader.fault(format!(
            "ARCHIVE_URL={url}: must name a bucket; example: ARCHIVE_URL=s3://bucket/prefix"
        ));
    }
    ArchiveLocation::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    }
}
