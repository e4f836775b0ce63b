//! Which events are logged and in which form, and where spans are sent.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::filter::Targets;

use super::reader::Reader;
use super::secret::SecretUrl;

/// Silences Postgres' notices about `IF NOT EXISTS`.
const DEFAULT_FILTER: &str = "info,sqlx::postgres::notice=warn";

/// What the default filter selects, and the details of Carga's own crates.
const DEFAULT_FILTER_ON_SIGNAL: &str = "info,carga=debug,sqlx::postgres::notice=warn";

/// The longest filter.
const MAX_FILTER_BYTES: usize = 4 << 10;

/// Which events are logged, and in which form.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A level, or one for each target: `info`, `carga_worker=debug,info`, ….
    pub filter: String,
    /// The filter that SIGUSR1 puts into effect, and that another SIGUSR1 takes back.
    pub filter_on_signal: String,
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

/// Where spans are sent.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The collector; without it, spans are not sent.
    pub endpoint: Option<SecretUrl>,
    /// The name of the service; `None` for the name of the program.
    pub service: Option<String>,
}

/// A text is not a log filter, for this reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFilter(String);

/// Reads a log filter: a level, or one for each target.
pub(crate) fn parse_filter(filter: &str) -> Result<Targets, InvalidFilter> {
    if filter.len() > MAX_FILTER_BYTES {
        let actual = filter.len();
        let reason =
            format!("a filter has at most {MAX_FILTER_BYTES} bytes, and this has {actual}");
        return Err(InvalidFilter(reason));
    }
    if filter.contains('[') {
        // `Targets` accepts spans and fields, but most of them select nothing.
        let reason = "only targets and levels can be selected, such as `carga_worker=debug,info`";
        return Err(InvalidFilter(reason.to_owned()));
    }
    let parsed = filter.parse::<Targets>();
    parsed.map_err(|error| InvalidFilter(error.to_string()))
}

impl LogSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            filter: read_filter(reader, "CARGA_LOG", DEFAULT_FILTER),
            filter_on_signal: read_filter(reader, "CARGA_LOG_ON_SIGUSR1", DEFAULT_FILTER_ON_SIGNAL),
            format: reader.parsed("CARGA_LOG_FORMAT", LogFormat::Text),
        }
    }
}

fn read_filter(reader: &mut Reader<'_>, name: &str, default: &str) -> String {
    let filter = reader.text(name, default);
    if let Err(error) = parse_filter(&filter) {
        reader.fault(format!("{name}={filter}: {error}"));
    }
    filter
}

impl TraceSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let endpoint = reader.optional_secret(ENDPOINT);
        let is_url = |url: &SecretUrl| {
            let url = url.expose();
            url.starts_with("http://") || url.starts_with("https://")
        };
        let (valid, invalid) = match endpoint {
            Some(url) if !is_url(&url) => (None, Some(url)),
            endpoint => (endpoint, None),
        };
        if let Some(url) = invalid {
            reader.fault(format!(
                "{ENDPOINT}={url}: must be a URL of OTLP over HTTP, such as http://localhost:4318"
            ));
        }
        Self {
            endpoint: valid,
            service: reader.optional("OTEL_SERVICE_NAME", None::<&str>),
        }
    }
}

/// Reads the settings of logs and traces alone, so that faults of the other settings can be logged.
pub fn telemetry_settings() -> (LogSettings, TraceSettings) {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut reader = Reader::new(&lookup);
    (
        LogSettings::read(&mut reader),
        TraceSettings::read(&mut reader),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the settings of traces from these variables, with the faults.
    fn traces(variables: &[(&str, &str)]) -> (TraceSettings, Vec<String>) {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let mut reader = Reader::new(&lookup);
        let settings = TraceSettings::read(&mut reader);
        let faults = reader.finish().err().map(|error| error.0);
        (settings, faults.unwrap_or_default())
    }

    #[test]
    fn spans_are_sent_only_to_a_url_of_http() {
        const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        assert!(traces(&[]).0.endpoint.is_none());
        for url in ["http://localhost:4318", "https://u:s3cret@collector"] {
            let (settings, faults) = traces(&[(ENDPOINT, url)]);
            assert!(settings.endpoint.is_some() && faults.is_empty(), "{url}");
            assert!(!format!("{settings:?}").contains("s3cret"));
        }
        let (settings, faults) = traces(&[(ENDPOINT, "grpc://u:s3cret@host:4317")]);
        assert!(settings.endpoint.is_none());
        let [fault] = faults.as_slice() else {
            panic!("{faults:?}");
        };
        assert!(
            fault.contains(ENDPOINT) && fault.contains("4318"),
            "{fault}"
        );
        assert!(!fault.contains("s3cret"), "{fault}");
    }

    #[test]
    fn the_filter_after_the_signal_shows_the_details_of_all_crates_of_carga() {
        let filter = parse_filter(DEFAULT_FILTER_ON_SIGNAL).unwrap();
        for target in ["carga", "carga_api::access_log", "carga_worker::group"] {
            assert!(
                filter.would_enable(target, &tracing::Level::DEBUG),
                "{target}"
            );
        }
        assert!(!filter.would_enable("sqlx::query", &tracing::Level::DEBUG));
    }
}
