use std::sync::Mutex;

use tracing::span::{Attributes, Id};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::*;
use crate::sync::lock;

/// The names of the spans that were opened.
#[derive(Debug, Default, Clone)]
struct Opened(Arc<Mutex<Vec<&'static str>>>);

impl<S> Layer<S> for Opened
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        lock(&self.0).push(attributes.metadata().name());
    }
}

#[derive(Debug)]
struct Counter;

#[async_trait::async_trait]
trait Count: std::fmt::Debug + Send + Sync {
    async fn count(&self, texts: &[&str]) -> PortResult<usize>;
    async fn fail(&self) -> PortResult<()>;
    fn most(&self) -> usize {
        1
    }
}

#[async_trait::async_trait]
impl Count for Counter {
    async fn count(&self, texts: &[&str]) -> PortResult<usize> {
        Ok(texts.len())
    }

    async fn fail(&self) -> PortResult<()> {
        Err(PortError::unavailable("counter.fail", "a secret"))
    }

    fn most(&self) -> usize {
        7
    }
}

traced_port! { "counter", Count for dyn Count {
    async fn count(&self, texts: &[&str]) -> PortResult<usize> { texts = texts.len() };
    async fn fail(&self) -> PortResult<()>;
} plain {
    fn most(&self) -> usize {
        self.0.most()
    }
}}

#[tokio::test]
async fn a_call_has_a_span_only_inside_of_another_span() {
    let opened = Opened::default();
    let _guard = tracing::subscriber::set_default(Registry::default().with(opened.clone()));
    let counter: Arc<dyn Count> = Arc::new(Counter);
    let counter = Traced(counter);
    assert_eq!(counter.count(&["a", "b"]).await.unwrap(), 2);
    assert!(lock(&opened.0).is_empty());
    let batch = tracing::info_span!("batch");
    let calls = async {
        assert_eq!(counter.count(&["a"]).await.unwrap(), 1);
        counter.fail().await.unwrap_err();
    };
    calls.instrument(batch).await;
    let expected = ["batch", "counter.count", "counter.fail"];
    assert_eq!(*lock(&opened.0), expected);
    assert_eq!(counter.most(), 7);
}
