use serde_json::Value;
use tempfile::NamedTempFile;
use tracing::callsite::{Callsite, Identifier};
use tracing::dispatcher::get_default;
use tracing::field::FieldSet;
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata};

use super::*;

fn settings(filter: &str, format: LogFormat) -> LogSettings {
    LogSettings {
        filter: filter.to_owned(),
        filter_on_signal: "debug".to_owned(),
        format,
    }
}

/// Logs what `work` does, and returns the log.
fn logged(settings: &LogSettings, work: impl FnOnce(&LogFilter)) -> String {
    let file = NamedTempFile::new().unwrap();
    let (layer, filter) = log_layer(settings, file.reopen().unwrap());
    tracing::dispatcher::with_default(&dispatch(vec![layer]), || work(&filter));
    std::fs::read_to_string(file.path()).unwrap()
}

#[test]
fn no_filter_selects_message_bodies_or_the_traffic_of_other_crates() {
    const REQUESTS: &str = "aws_smithy_runtime::client::orchestrator";
    const SIGNING: &str = "aws_sigv4::http_request::sign";
    let filter = "trace,lapin=trace,aws_smithy_runtime=trace,aws_sigv4=trace";
    let log = logged(&settings(filter, LogFormat::Text), |changed| {
        for _ in 0..2 {
            tracing::warn!(target: "lapin::returned_messages", body = "a row", "returned");
            tracing::trace!(target: "lapin::channels", frame = "a row", "will handle frame");
            tracing::trace!(target: REQUESTS, request = "a row", "transmitting");
            tracing::trace!(target: SIGNING, string_to_sign = "a row", "signing");
            tracing::trace!(target: "other", "a row");
            tracing::error!(target: "lapin::channels", "connection error");
            tracing::debug!(target: REQUESTS, "a retry");
            tracing::trace!(target: "carga_worker::group", "a detail of Carga");
            changed.set(filter).unwrap();
        }
    });
    assert!(!log.contains("a row"), "{log}");
    for shown in ["connection error", "a retry", "a detail of Carga"] {
        assert_eq!(log.matches(shown).count(), 2, "{shown}: {log}");
    }
}

#[test]
fn a_filter_names_a_level_for_each_target() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let log = logged(&settings("warn,carga_worker=debug", format), |_| {
            tracing::debug!(target: "carga_worker::merge", "first");
            tracing::trace!(target: "carga_worker::merge", "second");
            tracing::info!(target: "sqlx::query", "third");
            tracing::warn!(target: "sqlx::query", "fourth");
        });
        let shown = ["first", "second", "third", "fourth"].map(|event| log.contains(event));
        assert_eq!(shown, [true, false, false, true], "{log}");
    }
}

#[test]
fn a_filter_is_changed_and_put_back_while_events_are_logged() {
    let log = logged(&settings("warn", LogFormat::Text), |filter| {
        let log = |number: u32| tracing::debug!(target: "carga_worker::merge", number);
        log(1);
        assert_eq!(
            filter.set("carga_worker=debug").unwrap(),
            "carga_worker=debug"
        );
        log(2);
        assert_eq!(filter.current(), "carga_worker=debug");
        filter.set("carga_worker=loud").unwrap_err();
        filter.set("carga[batch]=debug").unwrap_err();
        log(3);
        assert_eq!(filter.reset(), "warn");
        assert_eq!(filter.current(), filter.configured());
        log(4);
    });
    let shown = [1, 2, 3, 4].map(|number| log.contains(&format!("number={number}")));
    assert_eq!(shown, [false, true, true, false], "{log}");
}

#[test]
fn a_signal_puts_the_filter_of_the_settings_back_if_another_is_in_effect() {
    logged(&settings("warn", LogFormat::Text), |filter| {
        assert_eq!(filter.toggle(), "debug");
        assert_eq!(filter.toggle(), "warn");
        filter.set("trace").unwrap();
        assert_eq!(filter.toggle(), "warn");
    });
}

/// A question for events at level `debug`, as a library asks that uses the crate `log`.
struct Question;

static QUESTION: Metadata<'static> = Metadata::new(
    "question",
    "sqlx::query",
    Level::DEBUG,
    None,
    None,
    None,
    FieldSet::new(&[], Identifier(&Question)),
    Kind::EVENT,
);

impl Callsite for Question {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &QUESTION
    }
}

#[test]
fn no_event_is_lost_after_a_question_without_an_event() {
    let log = logged(&settings("info", LogFormat::Text), |_| {
        for number in 0..3 {
            tracing::info!(number, "logged");
            get_default(|dispatch| dispatch.enabled(&QUESTION));
        }
    });
    assert_eq!(log.matches("logged").count(), 3, "{log}");
}

/// The lines of a JSON log.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_json_line_has_the_ids_of_its_event_and_of_the_spans_around_it() {
    let log = logged(&settings("info", LogFormat::Json), |_| {
        let request = tracing::info_span!("request", trace.id = field::Empty, tenant = "acme");
        request.record("trace.id", field::display("4bf9"));
        let upload = tracing::info_span!(parent: &request, "upload", upload.id = field::Empty);
        upload.in_scope(|| tracing::info!("no id yet"));
        upload.record("upload.id", "0123");
        upload.in_scope(|| tracing::info!("an event"));
        upload.in_scope(|| tracing::info!(upload.id = %"4567", "its own id"));
        tracing::info!(tenant = "\"}", "outside");
    });
    let lines = lines(&log);
    let ids = |line: &Value| ["trace_id", "upload_id", "tenant"].map(|id| line[id].clone());
    let text = |text: &str| Value::from(text);
    let none = Value::Null;
    let expected = [
        [text("4bf9"), none.clone(), text("acme")],
        [text("4bf9"), text("0123"), text("acme")],
        [text("4bf9"), text("4567"), text("acme")],
        [none.clone(), none, text("\"}")],
    ];
    assert_eq!(lines.iter().map(ids).collect::<Vec<_>>(), expected);
    assert_eq!(lines[1]["fields"]["message"], "an event");
    assert_eq!(lines[1]["level"], "INFO");
}

#[test]
fn a_json_line_without_ids_stays_as_it_is() {
    let log = logged(&settings("info", LogFormat::Json), |_| {
        tracing::info!("an event")
    });
    let lines = lines(&log);
    assert_eq!(lines[0]["fields"]["message"], "an event");
    assert_eq!(lines[0].get("tenant"), None);
}

#[test]
fn a_span_without_a_collector_continues_the_context_of_its_parent() {
    let known = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let log = logged(&settings("info", LogFormat::Json), |_| {
        let span = tracing::info_span!("request", trace.id = field::Empty);
        let context = continue_trace(&span, TraceContext::parse(known));
        assert_eq!(context.as_str(), known);
        assert_eq!(of_span(&span), None);
        span.in_scope(|| tracing::info!("an event"));
        let other = tracing::info_span!("request", trace.id = field::Empty);
        let new = continue_trace(&other, None);
        other.in_scope(|| tracing::info!(new.id = new.trace_id(), "an event"));
    });
    let lines = lines(&log);
    assert_eq!(lines[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(lines[1]["trace_id"], lines[1]["fields"]["new.id"]);
}

#[test]
fn a_disabled_span_costs_no_more_than_a_check() {
    logged(&settings("info", LogFormat::Text), |_| {
        let mut evaluated = false;
        let span = tracing::debug_span!(
            "store.store",
            rows = {
                evaluated = true;
                1
            }
        );
        assert!(span.is_disabled() && !evaluated);
    });
}
