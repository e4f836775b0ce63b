//! Spans around the calls of the ports, so that a trace shows what each server did for an upload.
//!
//! A call gets a span named `<port>.<operation>` only inside of another span. A call outside of all
//! spans, such as the renewal of the leases, belongs to no request and to no batch. The spans have
//! the level `debug`, so a call costs one more check while no log and no collector wants them.

use std::sync::Arc;

use tracing::{Instrument, Span, field};

use crate::error::{PortError, PortResult};

/// A port whose calls have spans.
#[derive(Debug)]
pub(crate) struct Traced<P: ?Sized>(pub(crate) Arc<P>);

/// A span of a call of a port; a disabled one outside of all spans.
macro_rules! call_span {
    ($name:expr $(, $($fields:tt)+)?) => {{
        let is_wanted = tracing::span_enabled!(tracing::Level::DEBUG);
        match is_wanted && tracing::Span::current().id().is_some() {
            true => tracing::debug_span!(
                $name,
                $($($fields)+,)?
                error = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
            ),
            false => tracing::Span::none(),
        }
    }};
}

/// Implements a trait of a port for [`Traced`]: each method calls the same method of the port in a
/// span. The braces behind a method have further fields of its span. The block `plain` has the
/// methods without a span.
macro_rules! traced_port {
    (
        $port:literal, $trait:ident for $object:ty {
            $(async fn $name:ident(&self $(, $argument:ident: $type:ty)* $(,)?) -> $output:ty
                $({ $($fields:tt)+ })?;)*
        }
        $(plain { $($plain:tt)* })?
    ) => {
        #[async_trait::async_trait]
        impl $trait for crate::traced::Traced<$object> {
            $(
                async fn $name(&self $(, $argument: $type)*) -> $output {
                    let span = crate::traced::call_span!(
                        concat!($port, ".", stringify!($name)) $(, $($fields)+)?
                    );
                    crate::traced::observed(span, self.0.$name($($argument),*)).await
                }
            )*
            $($($plain)*)?
        }
    };
}

pub(crate) use {call_span, traced_port};

/// Runs a call in its span, and records its error there.
pub(crate) async fn observed<T>(
    span: Span,
    call: impl Future<Output = PortResult<T>>,
) -> PortResult<T> {
    let outcome = call.instrument(span.clone()).await;
    if let Err(error) = &outcome {
        record_error(&span, error);
    }
    outcome
}

fn record_error(span: &Span, error: &PortError) {
    // Without the causes, which may have texts of a server.
    span.record("error", field::display(error));
    span.record("otel.status_code", "ERROR");
}

#[cfg(test)]
mod tests;
