//! The contract of the archive.

mod deleting;
mod fixtures;
mod putting;

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use carga_common::archive::{ArchiveKey, BatchArchive};
use carga_common::batch::BatchId;
use carga_common::upload::UploadId;

use self::fixtures::{Filesystem, S3};
use crate::sample::first;
use crate::suite::Fixture;

macro_rules! contract {
    ($adapter:ident on $fixture:ident) => {
        mod $adapter {
            tests! { $fixture {
                putting {
                    what_is_put_is_read_back
                    any_bytes_come_back_as_they_were
                    an_empty_object_is_an_object
                    an_object_is_there_after_opening_again
                    an_object_lies_under_its_key_and_nothing_lies_beside_it
                    putting_the_same_again_changes_nothing
                    readers_see_the_whole_object_or_none
                    many_puts_at_once_are_all_there
                    it_can_be_opened_while_another_puts
                    an_absent_key_is_not_found
                    an_archive_within_reach_answers_a_ping
                }
                deleting {
                    deleting_an_upload_deletes_its_objects_only_and_says_how_many
                    two_who_delete_at_once_do_not_disturb_each_other
                    an_upload_of_very_many_objects_is_deleted_whole
                    a_deleted_object_can_be_put_again
                }
            } }
        }
    };
}

contract!(s3 on S3);
contract!(filesystem on Filesystem);

/// An archive of a test's own.
trait ArchiveFixture: Fixture {
    /// One more handle on it, as another process would have.
    async fn open(&self) -> Result<Arc<dyn BatchArchive>>;

    /// What is there, sorted, seen without the adapter.
    async fn keys(&self) -> Result<Vec<String>>;
}

fn key(upload: UploadId, seq: u32) -> ArchiveKey {
    ArchiveKey::batch(BatchId {
        upload: first(upload),
        seq,
    })
}

/// The key of an upload of its own.
fn lone_key() -> ArchiveKey {
    key(UploadId::generate(), 1)
}

/// Puts batches 1 to `count`, each with its key as its content.
async fn put_batches(archive: &dyn BatchArchive, upload: UploadId, count: u32) -> Result<()> {
    use futures::{StreamExt, TryStreamExt};
    let puts = futures::stream::iter(1..=count).map(|seq| async move {
        let key = key(upload, seq);
        archive.put(&key, Bytes::from(key.to_string())).await
    });
    Ok(puts.buffer_unordered(16).try_collect().await?)
}
