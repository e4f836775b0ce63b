//! A store without tables, which remembers the trials that it is asked for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use carga_common::batch::{Batch, Cell};
use carga_common::error::PortResult;
use carga_common::store::{Trial, TrialBatches, Tried, ValidationStore};
use carga_common::sync::lock;
use carga_common::upload::UploadDataset;
use futures::TryStreamExt;

/// A trial that a store was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) dataset: UploadDataset,
    pub(super) columns: Vec<String>,
    pub(super) read: u64,
    pub(super) rejected: u64,
    /// The numbers of the rows in the batches, and their texts.
    pub(super) rows: Vec<(u64, Vec<String>)>,
}

/// A store that answers every trial with the same outcome.
#[derive(Debug)]
pub(super) struct FakeStore {
    outcome: fn() -> PortResult<Tried>,
    asked: Mutex<Vec<Asked>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl FakeStore {
    pub(super) fn new(outcome: fn() -> PortResult<Tried>) -> Self {
        Self {
            outcome,
            asked: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
        }
    }

    /// The last trial.
    pub(super) fn last(&self) -> Asked {
        lock(&self.asked).pop().unwrap()
    }

    /// How many trials there were.
    pub(super) fn trials(&self) -> usize {
        lock(&self.asked).len()
    }

    /// How many trials ran at the same time, at most.
    pub(super) fn most_running(&self) -> usize {
        self.most_running.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ValidationStore for FakeStore {
    async fn validate(&self, trial: &Trial, mut batches: TrialBatches<'_>) -> PortResult<Tried> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        let mut rows = Vec::new();
        while let Some(message) = batches.try_next().await.unwrap() {
            let batch = Batch::decode(message).unwrap();
            for (number, cells) in batch.row_numbers().zip(batch.rows()) {
                let text = |cell: Cell<'_>| {
                    let text = cell.text().unwrap().unwrap_or_default();
                    String::from_utf8(text.into_owned()).unwrap()
                };
                rows.push((number, cells.map(text).collect()));
            }
        }
        tokio::task::yield_now().await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        lock(&self.asked).push(Asked {
            dataset: trial.dataset.clone(),
            columns: trial.columns.clone(),
            read: trial.rows_read,
            rejected: trial.rows_rejected,
            rows,
        });
        (self.outcome)()
    }
}
