//! JSON lines whose top level has the ids by which lines are searched.

use std::fmt;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The ids of a span or of an event, from its fields `trace.id`, `upload.id` and `tenant`.
#[derive(Debug, Default, Serialize)]
struct Ids {
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
}

impl Ids {
    fn of_name(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "trace.id" => Some(&mut self.trace_id),
            "upload.id" => Some(&mut self.upload_id),
            "tenant" => Some(&mut self.tenant),
            _ => None,
        }
    }

    /// Takes the ids that are missing here from an outer span.
    fn complete(&mut self, outer: &Self) {
        let Self {
            trace_id,
            upload_id,
            tenant,
        } = self;
        for (id, outer) in [
            (trace_id, &outer.trace_id),
            (upload_id, &outer.upload_id),
            (tenant, &outer.tenant),
        ] {
            if id.is_none() {
                id.clone_from(outer);
            }
        }
    }
}

impl Visit for Ids {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(id) = self.of_name(field.name()) {
            *id = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(id) = self.of_name(field.name()) {
            *id = Some(format!("{value:?}"));
        }
    }
}

/// Keeps the ids of each span for the lines of its events.
#[derive(Debug)]
pub(super) struct SpanIds;

impl<S> Layer<S> for SpanIds
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut ids = Ids::default();
        attributes.record(&mut ids);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(ids);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(ids) = span.extensions_mut().get_mut::<Ids>() {
            values.record(ids);
        }
    }
}

/// Writes an event as JSON, with the ids of the event and of the spans around it.
#[derive(Debug)]
pub(super) struct JsonWithIds(pub(super) Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonWithIds
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut ids = Ids::default();
        event.record(&mut ids);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Ids>() {
                ids.complete(outer);
            }
        }
        let ids = serde_json::to_string(&ids).map_err(|_| fmt::Error)?;
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        // Both are objects without blanks, so they become one object.
        match (line.trim_end().strip_suffix('}'), ids.strip_prefix('{')) {
            (Some(start), Some(rest)) if rest.len() > 1 => writeln!(writer, "{start},{rest}"),
            _ => writer.write_str(&line),
        }
    }
}
