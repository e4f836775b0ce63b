use opentelemetry_sdk::trace::Sampler;
use tracing::field;
use tracing_subscriber::layer::SubscriberExt;

use super::super::{continue_trace, of_span};
use super::*;

const KNOWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Runs `work` while spans are recorded and sent nowhere.
fn recorded(sampler: Sampler, work: impl FnOnce()) {
    let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
    let subscriber = tracing_subscriber::registry().with(vec![layer(&provider)]);
    tracing::subscriber::with_default(subscriber, work);
}

#[test]
fn a_span_continues_the_trace_of_its_remote_parent_under_its_own_id() {
    recorded(Sampler::AlwaysOn, || {
        let span = tracing::info_span!("request", trace.id = field::Empty);
        let context = continue_trace(&span, TraceContext::parse(KNOWN));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!context.as_str().contains("00f067aa0ba902b7"), "{context}");
        assert!(context.as_str().ends_with("-01"), "{context}");
        let child = tracing::debug_span!(parent: &span, "store.seal");
        let child = of_span(&child).unwrap();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child, context);
    });
}

#[test]
fn a_span_without_a_parent_begins_a_trace() {
    recorded(Sampler::AlwaysOn, || {
        let of_request = || continue_trace(&tracing::info_span!("request"), None);
        assert_ne!(of_request().trace_id(), of_request().trace_id());
    });
}

#[test]
fn a_trace_that_the_sampler_leaves_out_is_passed_on_as_such() {
    recorded(Sampler::AlwaysOff, || {
        let span = tracing::info_span!("request");
        let context = continue_trace(&span, TraceContext::parse(KNOWN));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.as_str().ends_with("-00"), "{context}");
    });
    let unsampled = KNOWN.replace("-01", "-00");
    recorded(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)), || {
        let context = continue_trace(
            &tracing::info_span!("request"),
            TraceContext::parse(&unsampled),
        );
        assert!(context.as_str().ends_with("-00"), "{context}");
    });
}

#[test]
fn the_spans_of_other_crates_and_the_events_below_warn_are_not_sent() {
    recorded(Sampler::AlwaysOn, || {
        assert!(!tracing::debug_span!(target: "carga_worker::group", "a").is_disabled());
        assert!(tracing::trace_span!(target: "carga_worker::group", "a").is_disabled());
        assert!(tracing::error_span!(target: "lapin::channels", "a").is_disabled());
        assert!(tracing::event_enabled!(target: "carga_worker::group", Level::WARN));
        assert!(!tracing::event_enabled!(target: "carga_worker::group", Level::INFO));
        assert!(!tracing::event_enabled!(target: "sqlx::query", Level::ERROR));
    });
}

#[test]
fn the_state_and_the_sampled_flag_of_a_remote_span_are_kept() {
    let known = KNOWN.replace("-01", "-03");
    let context = TraceContext::from_headers(Some(&known), Some("vendor=1")).unwrap();
    let span = remote_span(&context).unwrap();
    assert!(span.is_remote() && span.is_sampled());
    assert_eq!(span.trace_flags(), TraceFlags::SAMPLED);
    assert_eq!(span.trace_state().header(), "vendor=1");
}

#[test]
fn a_service_without_a_name_has_that_of_the_program() {
    let name = |service: Option<&str>| {
        let resource = resource(service.map(str::to_owned), "carga-worker");
        let name = resource.get(&Key::from_static_str("service.name"));
        name.unwrap().as_str().into_owned()
    };
    assert_eq!(name(None), "carga-worker");
    assert_eq!(name(Some("night")), "night");
}
