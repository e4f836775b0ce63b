//! The contract of the queue.

mod dead_letters;
mod delivery;
mod fixtures;
mod publishing;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_common::batch::{BatchId, EncodedBatch};
use carga_common::queue::{BatchQueue, Deliveries, Delivery, Prefetch, QueueDepth};
use carga_common::upload::UploadId;
use carga_testkit::eventually;
use futures::future::BoxFuture;

use self::fixtures::{Rabbit, Sqlite};
use crate::sample::in_epoch;
use crate::suite::Fixture;

macro_rules! contract {
    ($adapter:ident on $fixture:ident) => {
        mod $adapter {
            tests! { $fixture {
                publishing {
                    a_published_batch_is_there_after_opening_again
                    many_publishes_at_once_are_each_durable_once
                    a_queue_that_nobody_empties_takes_what_comes
                    a_waiting_consumer_gets_what_another_handle_publishes
                    any_bytes_come_back_as_they_were
                    a_body_of_5_mib_comes_back_whole
                    a_message_id_and_its_epoch_come_back
                    a_message_of_an_unknown_version_is_carried_unharmed
                    depth_tells_ready_retrying_and_dead
                    a_queue_within_reach_answers_a_ping
                }
                delivery {
                    a_dropped_delivery_comes_again
                    an_acknowledged_delivery_is_gone_for_good
                    a_delivery_has_one_holder_at_a_time
                    no_more_than_the_prefetch_are_unsettled
                    of_large_batches_fewer_are_unsettled
                    batches_of_all_sizes_come_once_each
                    what_a_dropped_consumer_has_not_handed_out_goes_to_others
                    a_delivery_can_be_settled_after_its_consumer_is_gone
                    a_holder_that_has_closed_is_fenced
                    a_holder_that_is_taken_for_dead_is_fenced
                    the_deliveries_of_a_closed_handle_end_with_an_error
                }
                retry {
                    a_retried_delivery_waits_for_its_tier_and_comes_back_as_the_next_attempt
                    a_wait_survives_opening_again
                    every_retry_counts_one_attempt
                    a_redelivery_is_no_attempt
                    a_long_wait_does_not_hold_back_a_short_one
                }
                dead_letters {
                    a_dead_letter_is_kept_with_its_reason_id_and_body
                    a_reason_comes_back_as_it_was_given
                    a_dropped_dead_letter_comes_again
                    an_acknowledged_dead_letter_is_gone_for_good
                    only_a_dead_letter_has_a_reason
                }
            } }
        }
    };
}

contract!(rabbit on Rabbit);
contract!(sqlite on Sqlite);

/// Long enough for anything but a loss.
const PATIENCE: Duration = Duration::from_secs(30);

/// A queue of a test's own.
trait QueueFixture: Fixture {
    /// One more handle on it, as another process would have.
    async fn open(&self) -> Result<Arc<dyn BatchQueue>>;

    /// The same, of a process that the queue can be made to believe dead.
    async fn open_killable(&self) -> Result<Killable>;
}

/// A handle, and an action that makes the queue believe its process dead while the process lives
/// on.
struct Killable {
    queue: Arc<dyn BatchQueue>,
    presume_dead: BoxFuture<'static, Result<()>>,
}

/// A batch as the queue sees it: it never reads a body.
fn batch(upload: UploadId, seq: u32, body: impl Into<Bytes>) -> EncodedBatch {
    EncodedBatch {
        id: BatchId {
            upload: in_epoch(upload, 2),
            seq,
        },
        rows: 1,
        body: body.into(),
    }
}

/// A batch of an upload of its own.
fn lone_batch() -> EncodedBatch {
    batch(UploadId::generate(), 7, "body")
}

/// Publishes batches with the numbers 1 to `count`, one after the other.
async fn publish(queue: &dyn BatchQueue, count: u32) -> Result<()> {
    publish_with(queue, count, |seq| format!("body {seq}")).await
}

/// The same, with bodies of the test's own.
async fn publish_with<B: Into<Bytes>>(
    queue: &dyn BatchQueue,
    count: u32,
    body: impl Fn(u32) -> B,
) -> Result<()> {
    let (publisher, upload) = (queue.publisher(), UploadId::generate());
    for seq in 1..=count {
        publisher.publish(&batch(upload, seq, body(seq))).await?;
    }
    Ok(())
}

/// The next delivery, in time.
async fn next(deliveries: &mut Box<dyn Deliveries>) -> Result<Delivery> {
    let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await;
    Ok(delivery.context("nothing was delivered")??)
}

/// The next delivery of a new consumer.
async fn take(queue: &dyn BatchQueue) -> Result<Delivery> {
    next(&mut queue.consume(Prefetch::of_batches(1)).await?).await
}

/// The next dead letter of a new consumer.
async fn take_dead(queue: &dyn BatchQueue) -> Result<Delivery> {
    next(&mut queue.consume_dead_letters().await?).await
}

/// It is this batch in this attempt, unharmed.
fn check(delivery: &Delivery, sent: &EncodedBatch, attempt: u32) -> Result<()> {
    ensure!(delivery.id == Some(sent.id), "{}", told(delivery));
    ensure!(
        delivery.body == sent.body,
        "another body: {}",
        told(delivery)
    );
    ensure!(delivery.attempt == attempt, "{}", told(delivery));
    Ok(())
}

/// A delivery in few words: its own `Debug` shows the whole connection.
fn told(delivery: &Delivery) -> String {
    let Delivery {
        body,
        id,
        attempt,
        redelivered,
        reason,
        ..
    } = delivery;
    format!(
        "{id:?}, attempt {attempt}, redelivered {redelivered}, {} bytes, reason {reason:?}",
        body.len()
    )
}

fn seq_of(delivery: &Delivery) -> Result<u32> {
    Ok(delivery.id.context("it has no id")?.seq)
}

/// Polls until so many wait: what is given back may take a moment to arrive.
async fn wait_for_depth(queue: &dyn BatchQueue, expected: QueueDepth) -> Result<()> {
    let mut last = None;
    let reached = eventually(PATIENCE, "the expected depth", async || {
        last = queue.depth().await.ok();
        last == Some(expected)
    });
    let reached = reached.await;
    reached.with_context(|| format!("expected {expected:?}, found {last:?}"))
}

/// Closes the handle and opens another, which must find nothing at all. Whatever was not settled for good would be back.
async fn check_nothing_is_left<F: QueueFixture>(
    fixture: &F,
    queue: Arc<dyn BatchQueue>,
) -> Result<()> {
    queue.close().await;
    let again = fixture.open().await?;
    let depth = again.depth().await?;
    ensure!(depth == QueueDepth::default(), "{depth:?}");
    again.close().await;
    Ok(())
}
