//! The order in which a worker consumes its queues, and the messages of another installation.

mod fixture;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use carga_common::error::PortResult;
use carga_common::queue::{
    BatchPublisher, BatchQueue, Deliveries, Delivery, EventPublisher, Prefetch, QueueDepth,
};
use carga_common::sync::lock;
use carga_common::upload::UploadId;

use self::fixture::faulty_store::FaultyStore;
use self::fixture::{Fixture, TIMEOUT};

/// Passes every call to `inner`, and records which queues are consumed. The dead letters of the
/// upload `foreign` count as those of another installation.
#[derive(Debug)]
struct WatchedQueue {
    inner: Arc<dyn BatchQueue>,
    consumed: Mutex<Vec<&'static str>>,
    foreign: UploadId,
}

impl WatchedQueue {
    fn install(fixture: &mut Fixture, foreign: UploadId) -> Arc<Self> {
        let queue = Arc::new(Self {
            inner: Arc::clone(&fixture.backends.queue),
            consumed: Mutex::default(),
            foreign,
        });
        fixture.backends.queue = Arc::<Self>::clone(&queue);
        queue
    }
}

#[async_trait]
impl BatchQueue for WatchedQueue {
    fn publisher(&self) -> Arc<dyn BatchPublisher> {
        self.inner.publisher()
    }

    fn event_publisher(&self) -> Option<Arc<dyn EventPublisher>> {
        self.inner.event_publisher()
    }

    async fn consume(&self, prefetch: Prefetch) -> PortResult<Box<dyn Deliveries>> {
        lock(&self.consumed).push("batches");
        self.inner.consume(prefetch).await
    }

    async fn consume_suspects(&self) -> PortResult<Box<dyn Deliveries>> {
        lock(&self.consumed).push("suspects");
        self.inner.consume_suspects().await
    }

    async fn consume_dead_letters(&self) -> PortResult<Box<dyn Deliveries>> {
        Ok(Box::new(MarkedDeliveries {
            inner: self.inner.consume_dead_letters().await?,
            foreign: self.foreign,
            returned: HashSet::new(),
        }))
    }

    async fn depth(&self) -> PortResult<QueueDepth> {
        self.inner.depth().await
    }

    async fn ping(&self) -> PortResult<()> {
        self.inner.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// Marks the deliveries of one upload as foreign. The second delivery of each message is
/// acknowledged, as by a worker of the other installation.
#[derive(Debug)]
struct MarkedDeliveries {
    inner: Box<dyn Deliveries>,
    foreign: UploadId,
    returned: HashSet<u32>,
}

#[async_trait]
impl Deliveries for MarkedDeliveries {
    async fn next(&mut self) -> PortResult<Delivery> {
        loop {
            let mut delivery = self.inner.next().await?;
            match delivery.id.filter(|id| id.upload.id == self.foreign) {
                None => return Ok(delivery),
                Some(id) if self.returned.insert(id.seq) => {
                    delivery.is_foreign = true;
                    return Ok(delivery);
                }
                Some(_) => delivery.ack().await?,
            }
        }
    }
}

#[tokio::test]
async fn the_suspects_are_consumed_before_the_batches() -> Result<()> {
    let mut fixture = Fixture::new(&[]).await?;
    let queue = WatchedQueue::install(&mut fixture, UploadId::generate());
    let worker = tokio::spawn(fixture.runner().run());
    let has_both = async || lock(&queue.consumed).len() >= 2;
    carga_testkit::eventually(TIMEOUT, "both queues to be consumed", has_both).await?;
    let consumed = lock(&queue.consumed).clone();
    ensure!(consumed == ["suspects", "batches"], "{consumed:?}");
    fixture.stop.cancel();
    Ok(worker.await?)
}

#[tokio::test]
async fn many_foreign_dead_letters_do_not_delay_an_own_one_for_long() -> Result<()> {
    const FOREIGN: u32 = 40;
    let mut fixture = Fixture::new(&[]).await?;
    let foreign = UploadId::generate();
    WatchedQueue::install(&mut fixture, foreign);
    let store = Arc::new(FaultyStore::around(&fixture.backends.store));
    fixture.backends.store = Arc::<FaultyStore>::clone(&store);
    let malformed = || "this is no JSON".to_owned();
    for seq in 1..=FOREIGN {
        fixture.publish_body(foreign, seq, malformed()).await?;
    }
    let own = UploadId::generate();
    fixture.create(own).await?;
    fixture.publish_body(own, 1, malformed()).await?;
    fixture.seal(own, 1).await?;
    let worker = tokio::spawn(fixture.runner().run());
    let ended = fixture.wait_until_ended(own);
    let upload = tokio::time::timeout(Duration::from_secs(20), ended).await??;
    ensure!(upload.batches_dead == 1, "{upload:?}");
    fixture.stop.cancel();
    worker.await?;
    // A dead letter that was moved to this database would be missing in that of its upload.
    let parked = lock(&store.parked).clone();
    ensure!(parked == [Some(own)], "{parked:?}");
    Ok(())
}
