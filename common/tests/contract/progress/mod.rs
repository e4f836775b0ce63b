//! The contract of the live counters.

mod counting;
mod epochs;
mod fixtures;
mod lifetime;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::progress::{Counters, ProgressStore, Snapshot, StoredBatch};
use carga_common::upload::UploadKey;

use self::fixtures::{Redis, Sqlite};
use crate::suite::Fixture;

macro_rules! contract {
    ($adapter:ident on $fixture:ident) => {
        mod $adapter {
            tests! { $fixture {
                counting {
                    absent_counters_are_reported_and_nothing_is_added
                    a_batch_counted_twice_changes_nothing
                    concurrent_adds_are_exact
                    counters_never_go_backwards
                    restore_creates_counters_from_a_snapshot
                    restore_adds_missing_figures_and_removes_none
                    a_snapshot_of_200000_batches_is_restored_while_others_are_counted
                    each_upload_has_its_own_counters
                    a_reachable_progress_store_answers_a_ping
                }
                epochs {
                    a_newer_epoch_starts_with_new_counters
                    a_report_of_an_older_epoch_changes_nothing
                }
                lifetime {
                    counters_expire_after_their_time_to_live
                    every_change_renews_the_time_to_live
                }
            } }
        }
    };
}

contract!(redis on Redis);
contract!(sqlite on Sqlite);

/// A time to live that is longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A fixture with live counters.
trait ProgressFixture: Fixture {
    /// Opens another handle on the counters, as another process would.
    async fn open(&self, ttl: Duration) -> Result<Arc<dyn ProgressStore>>;
}

/// Batches of ten stored rows and two rejected rows.
fn stored(seqs: impl IntoIterator<Item = u32>) -> Vec<StoredBatch> {
    let batch = |seq| StoredBatch {
        seq,
        rows: 10,
        rejected: 2,
    };
    seqs.into_iter().map(batch).collect()
}

fn snapshot(rows_read: u64, bytes_received: u64, seqs: impl IntoIterator<Item = u32>) -> Snapshot {
    Snapshot {
        rows_read,
        bytes_received,
        stored: stored(seqs),
    }
}

/// Checks that the counters are present with these figures: rows read, bytes received, and batches
/// as `stored` makes them.
async fn check(
    progress: &dyn ProgressStore,
    upload: UploadKey,
    (rows_read, bytes_received, batches): (u64, u64, u64),
) -> Result<()> {
    let expected = Counters {
        rows_read,
        bytes_received,
        rows_stored: batches * 10,
        rows_rejected: batches * 2,
        batches_stored: batches,
    };
    let found = progress.read(upload).await?;
    ensure!(
        found == Some(expected),
        "expected {expected:?}, found {found:?}"
    );
    Ok(())
}
