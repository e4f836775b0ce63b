//! Validates a whole file: every check of an upload, and the difference that the upload would make.
//! Nothing is stored.
//!
//! First the file is read, with the code of an upload. The batches of its rows go into a temporary
//! file. Only then are the rows tried in the table of the dataset, so that a client that sends
//! slowly never holds a lock. The trial is rolled back.

mod outcome;
#[cfg(test)]
mod tests;
mod trying;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carga_common::batch::EncodedBatch;
use carga_common::dataset::{Dataset, Mode};
use carga_common::settings::IntakeSettings;
use carga_common::sha256::Sha256;
use carga_common::store::{Difference, FirstRejects, Store, ValidationStore};
use carga_common::tenant::Tenant;
use carga_common::upload::{Dialect, Merge, UploadDataset, UploadId, UploadKey};
use futures::{Stream, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use self::outcome::{RowOutcomes, Validation};
use self::trying::Untried;
use crate::csv::{CsvReader, Rejection};
use crate::decompress::Decompressor;
use crate::file_rows::{FileRows, find_dataset};
use crate::open::{csv_limits, open};
use crate::options::Options;
use crate::policy::{OnDuplicate, Policy};
use crate::refusal::Refusal;
use crate::rows::{Destination, Encoding, Rows};
use crate::size_limit::SizeLimit;
use crate::source::FileSource;
use crate::spool::Spool;

/// How many trials run at the same time. Each takes one of the few connections for merges, and may
/// lock a table.
const TRIALS_AT_ONCE: usize = 1;

/// A file that was read to its end, and whose rows were not tried yet.
#[derive(Debug)]
pub struct ReadFile {
    validation: Validation,
    sha256: Sha256,
    /// The rows for a dataset.
    untried: Option<Untried>,
}

/// Validates files; one per process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Validator {
    settings: Arc<IntakeSettings>,
    /// `None` if nothing has been stored yet, or if the options do not depend on it.
    store: Option<Arc<dyn Store>>,
    /// One permit per trial that runs at the same time.
    trials: Arc<Semaphore>,
}

impl Validator {
    /// A validator. Without a store, no dataset and no earlier upload exists.
    pub fn new(settings: Arc<IntakeSettings>, store: Option<Arc<dyn Store>>) -> Self {
        Self {
            settings,
            store,
            trials: Arc::new(Semaphore::new(TRIALS_AT_ONCE)),
        }
    }

    /// Whether a validation with these options depends on what is stored.
    pub fn needs_store(options: &Options) -> bool {
        options.dataset.is_some() || options.on_duplicate == OnDuplicate::Reject
    }

    /// Validates a local file, for the tenant `default`.
    pub async fn validate_file(
        &self,
        options: &Options,
        bytes: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> Result<Validation, Refusal> {
        let pieces = bytes.map_err(|error| Refusal::unreadable(&error));
        let tenant = Tenant::default();
        let limit = SizeLimit::of(&self.settings);
        let read = self.read(&tenant, pieces, options, limit).await?;
        self.test(&tenant, read, options).await
    }

    /// Reads a whole file, with the checks that an upload of the tenant makes while it reads.
    pub async fn read(
        &self,
        tenant: &Tenant,
        pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
        options: &Options,
        limit: SizeLimit,
    ) -> Result<ReadFile, Refusal> {
        // Before the file is read, so that a wrong option costs the client no transfer.
        let found = self.dataset(tenant, options).await?;
        let source = FileSource::new(pieces, limit);
        self.read_for(found, source, options).await
    }

    async fn read_for(
        &self,
        found: Option<Dataset>,
        source: FileSource<impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send>,
        options: &Options,
    ) -> Result<ReadFile, Refusal> {
        let settings = self.settings.as_ref();
        let mut file = Decompressor::open(source, settings.limits).await?;
        let limits = csv_limits(&settings.limits);
        let (reader, dialect) = open(&mut file, options.csv.clone(), limits).await?;
        let columns = reader.columns().to_vec();
        let (rows, dataset) = self.rows(reader, &dialect, found.as_ref(), options).await?;
        let findings = self.findings(options.policy, dataset.is_some()).await?;
        let mut rows = Rows::new(rows, self.encoding(dataset.as_ref()), findings);
        rows.read_all(&mut file).await?;
        let name = dataset.as_ref().map(|dataset| &dataset.name);
        let (account, findings) = rows.end(options.policy, name).await?;
        let dialect = account.changed_dialect(&file).unwrap_or(dialect);
        let untried = found.zip(dataset).zip(findings.spool);
        let untried = untried.map(|((found, dataset), spool)| Untried {
            dataset: merged(dataset, &found),
            columns: columns.clone(),
            rows_read: account.rows,
            rows_rejected: account.rejected,
            first_reject: findings.rejects.first().cloned(),
            spool,
        });
        Ok(ReadFile {
            validation: Validation::of_text(dialect, columns, &account, findings.rejects),
            sha256: file.source().sha256(),
            untried,
        })
    }

    /// Makes the checks that an upload of the tenant makes after it has read the file, and tries
    /// the rows in the table of their dataset.
    pub async fn test(
        &self,
        tenant: &Tenant,
        read: ReadFile,
        options: &Options,
    ) -> Result<Validation, Refusal> {
        let ReadFile {
            mut validation,
            sha256,
            untried,
        } = read;
        options.check_sha256(sha256)?;
        let Some(store) = &self.store else {
            return Ok(validation);
        };
        if options.on_duplicate == OnDuplicate::Reject {
            // No upload has this new id, so the content is compared with that of all uploads.
            let earlier = store.same_content(tenant, sha256, UploadId::generate());
            options.on_duplicate.check(earlier.await?)?;
        }
        if let Some(untried) = untried {
            let difference = self.try_rows(untried, store.as_ref()).await?;
            validation.add(difference);
        }
        Ok(validation)
    }

    /// Tries the rows as soon as fewer than [`TRIALS_AT_ONCE`] trials run. A validation holds an
    /// upload slot, so it waits for its turn no longer than a trial may take.
    async fn try_rows(
        &self,
        untried: Untried,
        store: &dyn ValidationStore,
    ) -> Result<Difference, Refusal> {
        let limit = self.settings.validate;
        let turn = timeout(limit, self.trials.acquire()).await;
        // The semaphore is never closed. If it were, only the number of trials would grow.
        let _permit = turn.map_err(|_| too_many_trials(limit))?;
        untried.try_on(store, limit).await
    }

    /// The dataset of the tenant that the options name.
    async fn dataset(
        &self,
        tenant: &Tenant,
        options: &Options,
    ) -> Result<Option<Dataset>, Refusal> {
        match (&self.store, &options.dataset) {
            (Some(store), _) => find_dataset(store.as_ref(), tenant, options).await,
            (None, Some(name)) => Err(Refusal::no_such_dataset(name)),
            (None, None) => Ok(None),
        }
    }

    /// Prepares the rows of a file, with the part of an upload's record that describes the dataset.
    async fn rows(
        &self,
        reader: CsvReader,
        dialect: &Dialect,
        dataset: Option<&Dataset>,
        options: &Options,
    ) -> Result<(FileRows, Option<UploadDataset>), Refusal> {
        let kept = self.settings.limits.rejects;
        match &self.store {
            Some(store) => {
                let store = store.as_ref();
                FileRows::checked(store, reader, dialect, dataset, options, kept).await
            }
            None => FileRows::new(reader, &dialect.renamed, dataset, options, kept),
        }
    }

    async fn findings(&self, policy: Policy, has_dataset: bool) -> Result<Findings, Refusal> {
        let settings = self.settings.as_ref();
        let directory = settings.temporary_directory.clone();
        Ok(Findings {
            spool: match has_dataset {
                true => Some(Spool::create(directory, settings.max_upload_bytes).await?),
                false => None,
            },
            policy,
            max_rejects: settings.limits.rejects,
            rejected: 0,
            rejects: FirstRejects::default(),
        })
    }

    fn encoding<'a>(&self, dataset: Option<&'a UploadDataset>) -> Encoding<'a> {
        let store = self.store.as_ref();
        Encoding {
            key: UploadKey::first(UploadId::generate()),
            dataset,
            max_row_bytes: store.and_then(|store| store.max_row_bytes()),
            // The batches never leave this process.
            trace: "",
            limits: self.settings.batch,
        }
    }
}

/// The dataset of a trial. An upload that is not staged appends its rows, and so does its trial.
/// Such an upload writes NULL into a column that the file lacks, although the column may have a
/// default.
fn merged(dataset: UploadDataset, found: &Dataset) -> UploadDataset {
    if dataset.is_staged() {
        return dataset;
    }
    let merge = Merge {
        mode: Mode::Append,
        key: found.definition.key.clone(),
    };
    UploadDataset {
        merge: Some(merge),
        missing: Vec::new(),
        ..dataset
    }
}

fn too_many_trials(waited: Duration) -> Refusal {
    let message = format!(
        "the rows of other files are being tried, and this file had no turn within {} s (CARGA_VALIDATE_SECS); retry later",
        waited.as_secs()
    );
    Refusal::unavailable("validation_busy", message)
}

/// The batches go into a temporary file. Of the rejected rows, only the first ones are kept.
struct Findings {
    /// `None` without a dataset: then no trial needs the batches.
    spool: Option<Spool>,
    policy: Policy,
    /// The most rejected rows that are kept of an upload.
    max_rejects: u64,
    rejected: u64,
    rejects: FirstRejects,
}

impl Destination for Findings {
    fn set_rows(&mut self, _rows: u64) {}

    async fn push(&mut self, batch: EncodedBatch) -> Result<(), Refusal> {
        match &mut self.spool {
            Some(spool) => spool.push(&batch.body).await,
            None => Ok(()),
        }
    }

    async fn reject(&mut self, rejection: Rejection) -> Result<(), Refusal> {
        self.rejected += 1;
        self.policy
            .check_rejected(&rejection, self.rejected, self.max_rejects)?;
        self.rejects.push(rejection.row);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn rejected(&self) -> u64 {
        self.rejected
    }
}
