//! Which events are logged, and in which form.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::filter::Targets;

use super::reader::Reader;

/// Silences Postgres' notices about `IF NOT EXISTS`.
const DEFAULT_FILTER: &str = "info,sqlx::postgres::notice=warn";

/// Which events are logged, and in which form.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A level, or one for each target: `info`, `carga_worker=debug,info`, ….
    pub filter: String,
    /// Whether log lines are text or JSON.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("use `text` or `json`"),
        }
    }
}

impl LogSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let filter = reader.text("CARGA_LOG", DEFAULT_FILTER);
        if let Err(error) = filter.parse::<Targets>() {
            reader.fault(format!("CARGA_LOG={filter}: {error}"));
        } else if filter.contains('[') {
            // `Targets` accepts spans and fields, but most of them select nothing.
            reader.fault(format!(
                "CARGA_LOG={filter}: only targets and levels can be selected, such as \
                 `carga_worker=debug,info`"
            ));
        }
        Self {
            filter,
            format: reader.parsed("CARGA_LOG_FORMAT", LogFormat::Text),
        }
    }
}

/// Reads the log settings alone, so that faults of the other settings can be logged.
pub fn log_settings() -> LogSettings {
    let lookup = |name: &str| std::env::var(name).ok();
    LogSettings::read(&mut Reader::new(&lookup))
}
