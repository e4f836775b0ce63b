use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::*;
use crate::batch::BatchId;
use crate::upload::{UploadId, UploadKey};

const BATCHES: u32 = 600;
const CONCURRENT_PUBLISHES: usize = 4;

#[tokio::test]
async fn a_queue_that_is_being_emptied_stays_short() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SqliteQueueSettings {
        file: dir.path().join("queue.db"),
        publish_timeout: Duration::from_secs(10),
        sole_user: true,
    };
    let queue = SqliteQueue::open(settings).await.unwrap();
    let (publisher, upload) = (queue.publisher(), UploadId::generate());
    let batches = (1..=BATCHES).map(|seq| EncodedBatch {
        id: BatchId {
            upload: UploadKey::first(upload),
            seq,
        },
        rows: 1,
        body: "body".into(),
    });
    let published = AtomicU64::new(0);
    let publish = stream::iter(batches)
        .map(async |batch| {
            publisher.publish(&batch).await?;
            published.fetch_add(1, Ordering::Relaxed);
            PortResult::Ok(())
        })
        .buffer_unordered(CONCURRENT_PUBLISHES)
        .try_collect::<()>();
    // Each settlement has its own commit, so consuming is slower than publishing.
    let consume = async {
        let mut longest = 0;
        let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
        for settled in 0..u64::from(BATCHES) {
            longest = longest.max(published.load(Ordering::Relaxed) - settled);
            deliveries.next().await?.ack().await?;
        }
        PortResult::Ok(longest)
    };
    let (_, longest) = tokio::try_join!(publish, consume).unwrap();
    let limit = (LONG_QUEUE + CONCURRENT_PUBLISHES) as u64;
    assert!(longest <= limit, "{longest} messages, the limit is {limit}");
    queue.close().await;
}
