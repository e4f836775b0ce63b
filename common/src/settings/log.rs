//! Which events are logged and in which form, and where spans are sent.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use tracing_subscriber::filter::Targets;

use super::reader::Reader;
use super::secret::SecretUrl;

/// Silences Postgres' notices about `IF NOT EXISTS`.
const DEFAULT_FILTER: &str = "info,sqlx::postgres::notice=warn";

/// What the default filter selects, and the details of Carga's own crates.
const DEFAULT_FILTER_ON_SIGNAL: &str = "info,carga=debug,sqlx::postgres::notice=warn";

/// The longest filter.
const MAX_FILTER_BYTES: usize = 4 << 10;

/// The URL of the collector for all signals. Each signal adds its path to the URL.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The URL for spans alone, with its path. It replaces the other one.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

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
    /// The URL of the collector for spans, with its path; without it, spans are not sent.
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
        let of_all = read_endpoint(reader, ENDPOINT);
        let of_traces = read_endpoint(reader, TRACES_ENDPOINT);
        Self {
            endpoint: of_traces.or_else(|| of_all.as_ref().map(with_path)),
            service: reader.optional("OTEL_SERVICE_NAME", None::<&str>),
        }
    }
}

/// Adds the path of spans (OpenTelemetry Protocol Exporter, "Endpoint URLs for OTLP/HTTP").
fn with_path(endpoint: &SecretUrl) -> SecretUrl {
    SecretUrl::new(format!(
        "{}/v1/traces",
        endpoint.expose().trim_end_matches('/')
    ))
}

/// Reads the URL of a collector. The SDK would log an invalid one as it is, with its password.
fn read_endpoint(reader: &mut Reader<'_>, name: &str) -> Option<SecretUrl> {
    let url = reader.optional_secret(name)?;
    let Some(fault) = endpoint_fault(&url) else {
        return Some(url);
    };
    // A user may be a token, so it is not shown either.
    let shown = match url.has_user() {
        true => "***".to_owned(),
        false => url.to_string(),
    };
    reader.fault(format!("{name}={shown}: {fault}"));
    None
}

fn endpoint_fault(url: &SecretUrl) -> Option<&'static str> {
    let uri = url.expose().parse::<Uri>().ok();
    let scheme = uri.as_ref().and_then(Uri::scheme_str);
    if !matches!(scheme, Some("http" | "https")) || !url.has_valid_authority() {
        return Some("must be a URL of OTLP over HTTP, such as http://localhost:4318");
    }
    url.has_user().then_some(
        "must have no user and no password; set OTEL_EXPORTER_OTLP_HEADERS instead, such as authorization=Basic%20…",
    )
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
    fn spans_are_sent_to_the_path_of_the_collector_or_to_the_url_for_spans() {
        let endpoint = |variables: &[(&str, &str)]| {
            let (settings, faults) = traces(variables);
            assert!(faults.is_empty(), "{faults:?}");
            settings.endpoint.map(|url| url.expose().to_owned())
        };
        assert_eq!(endpoint(&[]), None);
        for (collector, expected) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("https://[::1]/otlp/", "https://[::1]/otlp/v1/traces"),
        ] {
            let collector = (ENDPOINT, collector);
            assert_eq!(endpoint(&[collector]).as_deref(), Some(expected));
            let spans = (TRACES_ENDPOINT, "https://spans/here");
            let expected = Some("https://spans/here");
            assert_eq!(endpoint(&[collector, spans]).as_deref(), expected);
            assert_eq!(endpoint(&[spans]).as_deref(), expected);
        }
    }

    #[test]
    fn a_faulty_url_of_a_collector_is_refused_without_its_password() {
        const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
        for name in [ENDPOINT, TRACES_ENDPOINT] {
            for (url, remedy) in [
                ("grpc://u:s3cret@host:4317", "http://localhost:4318"),
                ("u:s3cret@host:4318", "http://localhost:4318"),
                ("http://u:s3cret@a host", "http://localhost:4318"),
                ("http://u:s3cret/@host", "http://localhost:4318"),
                ("http://host:port", "http://localhost:4318"),
                ("https://u:s3cret@host:4318", HEADERS),
                ("https://s3cret@host/v1/traces", HEADERS),
            ] {
                let (settings, faults) = traces(&[(name, url)]);
                assert!(settings.endpoint.is_none(), "{url}");
                let [fault] = faults.as_slice() else {
                    panic!("{faults:?}");
                };
                assert!(fault.starts_with(name), "{fault}");
                assert!(fault.contains(remedy), "{fault}");
                assert!(!fault.contains("s3cret"), "{fault}");
            }
        }
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
