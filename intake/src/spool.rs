//! Keeps the encoded batches of a file in a temporary file until they are tried.
//!
//! A client may send its file slowly, and only the trial needs a database connection. The temporary
//! file has no name. The system therefore removes it when it is closed, also after a crash.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use carga_common::store::TrialBatches;
use futures::{StreamExt, stream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader, BufWriter};

use crate::refusal::{Refusal, RefusalKind};

/// How much is written or read at once, unless a batch is larger.
const BUFFER_BYTES: usize = 64 << 10;

/// The length before each batch.
const LENGTH_BYTES: u64 = 4;

/// The batches of a file, in the order in which they were made.
#[derive(Debug)]
pub(crate) struct Spool {
    file: BufWriter<File>,
    bytes: u64,
    /// The most bytes that may be kept.
    limit: u64,
}

impl Spool {
    /// Makes the temporary file in this directory, or in that of the system.
    pub(crate) async fn create(directory: Option<PathBuf>, limit: u64) -> Result<Self, Refusal> {
        let made = tokio::task::spawn_blocking(move || temporary_file(directory.as_deref())).await;
        let made = made.map_err(io::Error::other).flatten();
        let file = made.map_err(|error| refusal(&error))?;
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, File::from_std(file)),
            bytes: 0,
            limit,
        })
    }

    /// Adds the message of a batch.
    pub(crate) async fn push(&mut self, batch: &[u8]) -> Result<(), Refusal> {
        self.bytes += LENGTH_BYTES + batch.len() as u64;
        if self.bytes > self.limit {
            return Err(too_large(self.limit, self.bytes));
        }
        let written = self.write(batch).await;
        written.map_err(|error| refusal(&error))
    }

    async fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let length = u32::try_from(batch.len()).map_err(io::Error::other)?;
        self.file.write_u32(length).await?;
        self.file.write_all(batch).await
    }

    /// The batches, read from the beginning.
    pub(crate) async fn into_batches(mut self) -> Result<TrialBatches<'static>, Refusal> {
        let rewound = self.rewind().await;
        rewound.map_err(|error| refusal(&error))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, self.file.into_inner());
        let batches = stream::try_unfold((file, self.bytes), async |(mut file, bytes)| {
            let batch = read_batch(&mut file, bytes).await?;
            Ok::<_, io::Error>(batch.map(|batch| {
                let left = bytes.saturating_sub(LENGTH_BYTES + batch.len() as u64);
                (batch, (file, left))
            }))
        });
        Ok(batches.boxed())
    }

    async fn rewind(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.get_mut().rewind().await?;
        Ok(())
    }
}

/// Reads the next batch. `left` is the number of bytes behind the batches that were read.
async fn read_batch(file: &mut BufReader<File>, left: u64) -> io::Result<Option<Bytes>> {
    if left == 0 {
        return Ok(None);
    }
    let length = file.read_u32().await?;
    let mut batch = BytesMut::zeroed(length as usize);
    file.read_exact(&mut batch).await?;
    Ok(Some(batch.freeze()))
}

/// Opens a file without a name. The data directory is missing until something is stored in it.
fn temporary_file(directory: Option<&Path>) -> io::Result<std::fs::File> {
    match directory.filter(|directory| directory.is_dir()) {
        Some(directory) => tempfile::tempfile_in(directory),
        None => tempfile::tempfile(),
    }
}

/// The file is too large for a validation, although an upload may accept it.
fn too_large(limit: u64, actual: u64) -> Refusal {
    let message = format!(
        "a validation keeps the rows of the file in a temporary file, and they need at least {actual} bytes there; the limit is {limit} (CARGA_MAX_UPLOAD_BYTES); validate the file in parts, or raise the limit"
    );
    let refusal = Refusal::new(RefusalKind::TooLarge, "validation_too_large", message);
    refusal.exceeding(limit, actual)
}

/// Logs the cause. The answer names only a full disk, because the client can try again later.
fn refusal(error: &io::Error) -> Refusal {
    tracing::error!(%error, "cannot keep the rows of a validation in a temporary file");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let message = "no room left for the temporary file of the validation; make room and validate the file again";
            Refusal::new(RefusalKind::Full, "storage_full", message)
        }
        _ => Refusal::internal(),
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    const ANY: u64 = u64::MAX;

    async fn read_back(batches: &[Vec<u8>], limit: u64) -> Result<Vec<Bytes>, Refusal> {
        let mut spool = Spool::create(None, limit).await?;
        for batch in batches {
            spool.push(batch).await?;
        }
        let batches: io::Result<Vec<Bytes>> = spool.into_batches().await?.try_collect().await;
        Ok(batches.unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn batches_of_any_size_are_read_back_in_their_order(
            sizes in prop::collection::vec(
                prop_oneof![0..100_usize, Just(BUFFER_BYTES - 4), Just(BUFFER_BYTES), 0..300_000_usize],
                0..12,
            ),
        ) {
            let batches: Vec<Vec<u8>> = sizes
                .iter()
                .enumerate()
                .map(|(number, size)| vec![number as u8; *size])
                .collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(read_back(&batches, ANY)).unwrap();
            prop_assert_eq!(read, batches);
        }
    }

    #[tokio::test]
    async fn more_bytes_than_the_limit_are_refused_with_the_setting() {
        let batches = vec![vec![0_u8; 96]; 3];
        assert_eq!(read_back(&batches, 300).await.unwrap(), batches);
        let refusal = read_back(&batches, 299).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::TooLarge);
        assert_eq!(refusal.failure.code, "validation_too_large");
        let exceeded = refusal.exceeded.unwrap();
        assert_eq!((exceeded.limit, exceeded.actual), (299, 300));
        let message = refusal.failure.message;
        assert!(message.contains("CARGA_MAX_UPLOAD_BYTES"), "{message}");
    }

    #[tokio::test]
    async fn the_temporary_file_is_in_the_directory_and_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let mut spool = Spool::create(Some(path.clone()), ANY).await.unwrap();
        spool.push(&vec![1_u8; 200_000]).await.unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        let batches = spool.into_batches().await.unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        let batches: Vec<Bytes> = batches.try_collect().await.unwrap();
        assert_eq!(batches, [vec![1_u8; 200_000]]);
    }

    #[tokio::test]
    async fn a_data_directory_that_does_not_exist_yet_is_not_needed() {
        let missing = Some(PathBuf::from("/does/not/exist"));
        let mut spool = Spool::create(missing, ANY).await.unwrap();
        spool.push(b"batch").await.unwrap();
        let batches = spool.into_batches().await.unwrap();
        let batches: Vec<Bytes> = batches.try_collect().await.unwrap();
        assert_eq!(batches, ["batch"]);
    }

    #[test]
    fn only_a_full_disk_is_named_in_the_refusal() {
        let full = refusal(&io::Error::from(ErrorKind::StorageFull));
        assert_eq!(full.kind, RefusalKind::Full);
        assert_eq!(full.failure.code, "storage_full");
        let other = refusal(&io::Error::from(ErrorKind::PermissionDenied));
        assert_eq!(other.kind, RefusalKind::Internal);
    }
}
