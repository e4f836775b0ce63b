//! The contract of the queue.

mod dead_letters;
mod delivery;
mod events;
mod fixtures;
mod installations;
mod publishing;
mod retry;
mod silence;
mod suspects;
mod topology;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_common::batch::{BatchId, EncodedBatch};
use carga_common::queue::{BatchQueue, Deliveries, Delivery, Prefetch, QueueDepth};
use carga_common::upload::UploadId;
use carga_testkit::eventually;
use futures::future::BoxFuture;
use uuid::Uuid;

use self::fixtures::{Rabbit, Sqlite};
use crate::sample::in_epoch;
use crate::suite::Fixture;

macro_rules! contract {
    ($adapter:ident on $fixture:ident) => {
        mod $adapter {
            tests! { $fixture {
                publishing {
                    a_published_batch_survives_reopening
                    concurrent_publishes_are_each_durable_once
                    a_queue_without_a_consumer_accepts_every_publish
                    a_waiting_consumer_receives_a_batch_from_another_handle
                    a_body_of_any_bytes_is_delivered_unchanged
                    a_body_of_5_mib_is_delivered_whole
                    a_delivery_carries_its_batch_id_and_epoch
                    a_message_of_an_unknown_version_is_delivered_unchanged
                    depth_counts_ready_retrying_and_dead_messages
                    a_reachable_queue_answers_a_ping
                    a_publish_after_the_deletion_of_the_queue_is_kept
                    a_batch_reaches_a_consumer_whose_queue_was_deleted
                    a_ping_after_the_deletion_of_the_queue_makes_it_again
                }
                delivery {
                    a_dropped_delivery_is_redelivered
                    an_acknowledged_delivery_is_gone_for_good
                    a_delivery_has_one_holder_at_a_time
                    unsettled_deliveries_never_exceed_the_prefetch
                    prefetch_limits_the_bytes_of_unsettled_deliveries
                    batches_of_mixed_sizes_are_delivered_once_each
                    batches_prefetched_by_a_dropped_consumer_go_to_another
                    a_delivery_can_be_settled_after_its_consumer_is_dropped
                    a_closed_holder_is_fenced
                    a_holder_presumed_dead_is_fenced
                    a_closed_handle_ends_its_deliveries_with_an_error
                    every_acknowledgement_ends_although_its_holder_is_presumed_dead
                }
                retry {
                    a_retried_delivery_waits_for_its_tier_and_is_the_next_attempt
                    a_retry_delay_survives_reopening
                    every_retry_adds_one_attempt
                    a_redelivery_does_not_count_as_an_attempt
                    a_long_retry_delay_does_not_hold_back_a_short_one
                    a_postponed_message_returns_as_the_same_attempt
                    a_postponement_survives_reopening
                }
                suspects {
                    a_message_whose_holders_keep_dying_is_delivered_only_as_a_suspect
                    suspects_come_one_at_a_time
                    the_neighbours_of_a_suspect_settle
                    a_suspect_whose_holders_keep_dying_becomes_a_dead_letter
                    a_returned_message_is_never_a_suspect
                    batches_prefetched_before_an_orderly_stop_are_never_suspects
                    a_returned_suspect_is_delivered_again
                }
                installations {
                    a_message_of_another_installation_is_foreign
                    a_foreign_message_stays_foreign
                    a_postponement_by_another_installation_is_not_counted
                }
                silence {
                    a_publish_to_a_silent_queue_fails_in_time
                    a_delivery_is_redelivered_if_the_copy_that_replaces_it_fails
                }
                dead_letters {
                    a_dead_letter_keeps_its_reason_id_and_body
                    a_reason_is_delivered_unchanged
                    a_dropped_dead_letter_is_redelivered
                    an_acknowledged_dead_letter_is_gone_for_good
                    only_a_dead_letter_has_a_reason
                }
            } }
        }
    };
}

contract!(rabbit on Rabbit);
contract!(sqlite on Sqlite);

/// Only RabbitMQ has such arguments, so the contract of both adapters has no such case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_queue_on_rabbitmq_has_the_arguments_that_its_promises_need() -> Result<()> {
    crate::suite::run::<Rabbit>(topology::check_arguments).await
}

/// The queue in a file has no broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_starts_although_rabbitmq_answers_slowly() -> Result<()> {
    crate::suite::run::<Rabbit>(topology::check_start_with_a_slow_broker).await
}

/// Makes one test of each promise that only a queue with a broker has.
macro_rules! events {
    ($($test:ident: $check:ident on $fixture:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> Result<()> {
                crate::suite::run::<$fixture>(events::$check).await
            }
        )*
    };
}

events! {
    an_event_arrives_in_the_queues_that_want_it: check_receiving on Rabbit
    events_are_published_after_the_deletion_of_their_exchange: check_deleted_exchange on Rabbit
    a_full_queue_refuses_its_own_events_only: check_full_queue on Rabbit
    events_for_a_silent_broker_fail_in_time: check_silence on Rabbit
    a_queue_without_a_broker_publishes_no_events: check_no_broker on Sqlite
}

/// How long a case waits for a delivery before it fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A fixture with a queue.
trait QueueFixture: Fixture {
    /// Opens another handle on the queue, as another process would.
    async fn open(&self) -> Result<Arc<dyn BatchQueue>> {
        self.open_as(INSTALLATION).await
    }

    /// Opens another handle, as a process of this installation would.
    async fn open_as(&self, installation: Uuid) -> Result<Arc<dyn BatchQueue>>;

    /// Opens another handle, whose process the queue can be made to presume dead.
    async fn open_killable(&self) -> Result<Killable>;

    /// Opens another handle with a short timeout. Its queue can fall silent.
    async fn open_silenceable(&self) -> Result<Silenceable>;

    /// Deletes the queue with all messages, while handles on it are open.
    async fn delete_the_queue(&self) -> Result<()>;
}

/// The installation of a handle, unless a case needs another one.
const INSTALLATION: Uuid = Uuid::from_u128(1);

/// A handle, and an action that makes the queue presume its process dead although it is alive.
struct Killable {
    queue: Arc<dyn BatchQueue>,
    presume_dead: BoxFuture<'static, Result<()>>,
}

/// A handle, and an action after which the queue answers no publish and no settlement.
struct Silenceable {
    queue: Arc<dyn BatchQueue>,
    fall_silent: BoxFuture<'static, Result<Silence>>,
    /// How long settlements that start together take at most until all have failed.
    settles_within: Duration,
}

/// Ends the silence when it is dropped.
type Silence = Box<dyn Any + Send>;

/// A batch with any body, since the queue does not read bodies.
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

/// A batch of a new upload.
fn lone_batch() -> EncodedBatch {
    batch(UploadId::generate(), 7, "body")
}

/// Publishes batches with the numbers 1 to `count`, in this order.
async fn publish(queue: &dyn BatchQueue, count: u32) -> Result<()> {
    publish_with(queue, count, |seq| format!("body {seq}")).await
}

/// Publishes batches with the numbers 1 to `count` and these bodies, in this order.
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

/// The next delivery; fails after `TIMEOUT`.
async fn next(deliveries: &mut Box<dyn Deliveries>) -> Result<Delivery> {
    let delivery = tokio::time::timeout(TIMEOUT, deliveries.next()).await;
    Ok(delivery.with_context(|| format!("nothing was delivered within {TIMEOUT:?}"))??)
}

/// The next delivery of a new consumer.
async fn take(queue: &dyn BatchQueue) -> Result<Delivery> {
    next(&mut queue.consume(Prefetch::of_batches(1)).await?).await
}

/// The next dead letter of a new consumer.
async fn take_dead(queue: &dyn BatchQueue) -> Result<Delivery> {
    next(&mut queue.consume_dead_letters().await?).await
}

/// Checks that the delivery is this batch, unchanged, in this attempt.
fn check(delivery: &Delivery, sent: &EncodedBatch, attempt: u32) -> Result<()> {
    ensure!(delivery.id == Some(sent.id), "{}", describe(delivery));
    ensure!(
        delivery.body == sent.body,
        "the body differs: {}",
        describe(delivery)
    );
    ensure!(delivery.attempt == attempt, "{}", describe(delivery));
    Ok(())
}

/// A short description of a delivery; its `Debug` output includes the whole connection.
fn describe(delivery: &Delivery) -> String {
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
    Ok(delivery.id.context("the delivery has no batch id")?.seq)
}

/// Polls until the depth is as expected, since a returned delivery takes a moment to arrive.
async fn wait_for_depth(queue: &dyn BatchQueue, expected: QueueDepth) -> Result<()> {
    let mut last = None;
    let reached = eventually(TIMEOUT, "the expected depth", async || {
        last = queue.depth().await.ok();
        last == Some(expected)
    });
    let reached = reached.await;
    reached.with_context(|| format!("expected {expected:?}, found {last:?}"))
}

/// Closes the handle and checks with a new one that the queue is empty. A delivery that was not
/// settled would be back.
async fn check_nothing_is_left<F: QueueFixture>(
    fixture: &F,
    queue: Arc<dyn BatchQueue>,
) -> Result<()> {
    queue.close().await;
    let again = fixture.open().await?;
    let depth = again.depth().await?;
    ensure!(
        depth == QueueDepth::default(),
        "expected an empty queue, found {depth:?}"
    );
    again.close().await;
    Ok(())
}
