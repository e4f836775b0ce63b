//! The contract of the archive.

mod deleting;
mod fixtures;
mod media_types;
mod putting;
mod slow;

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use carga_common::archive::{ArchiveCompression, ArchiveKey, BatchArchive};
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
                    a_put_object_is_read_back
                    an_object_of_any_bytes_is_read_back_unchanged
                    an_empty_object_is_stored
                    an_object_survives_reopening
                    a_put_leaves_only_the_object_under_its_key
                    putting_the_same_object_again_changes_nothing
                    readers_see_the_whole_object_or_none
                    concurrent_puts_are_all_stored
                    an_archive_can_be_opened_while_another_handle_puts
                    an_absent_key_is_not_found
                    a_reachable_archive_answers_a_ping
                }
                deleting {
                    deleting_an_upload_deletes_and_counts_only_its_objects
                    deleting_an_upload_deletes_its_objects_of_every_compression
                    concurrent_deletions_of_an_upload_succeed
                    an_upload_of_1100_objects_is_deleted_completely
                    a_deleted_object_can_be_put_again
                    deleting_an_object_keeps_the_others
                }
            } }
        }
    };
}

contract!(s3 on S3);
contract!(filesystem on Filesystem);

/// Only S3 is behind a network, so the contract of both adapters has no such case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_to_s3_over_a_slow_line_has_the_time_that_its_bytes_need() -> Result<()> {
    crate::suite::run::<S3>(slow::check_put).await
}

/// A file has no media type, so the contract of both adapters has no such case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_on_s3_has_the_media_type_of_its_compression_and_no_encoding() -> Result<()> {
    crate::suite::run::<S3>(media_types::check).await
}

/// A fixture with an archive.
trait ArchiveFixture: Fixture {
    /// Opens another handle on the archive, as another process would.
    async fn open(&self) -> Result<Arc<dyn BatchArchive>>;

    /// The keys of all objects, sorted, listed without the adapter.
    async fn keys(&self) -> Result<Vec<String>>;
}

fn key(upload: UploadId, seq: u32) -> ArchiveKey {
    compressed_key(upload, seq, ArchiveCompression::None)
}

fn compressed_key(upload: UploadId, seq: u32, compression: ArchiveCompression) -> ArchiveKey {
    let upload = first(upload);
    ArchiveKey::batch(BatchId { upload, seq }, compression)
}

/// The key of the first batch of a new upload.
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
