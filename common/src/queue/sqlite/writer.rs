//! The one task that writes. It takes all waiting requests, carries them out in one transaction,
//! and answers after the commit.

use std::error::Error;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::messages::{self, End, HOLDER_LIFE, Message};
use crate::batch::EncodedBatch;
use crate::error::{PortError, PortResult};
use crate::sqlite::{Database, WriteTransaction, port_error};

/// Limits of one transaction: requests at most, and bytes of bodies after which no more are taken.
/// A commit takes some milliseconds.
const GROUP_REQUESTS: usize = 128;
const GROUP_BYTES: usize = 8 << 20;

/// The queue is long from this many messages on: a quarter of a million rows.
pub(super) const LONG: usize = 256;

type Answer<T> = oneshot::Sender<PortResult<T>>;

/// A request to the writer.
#[derive(Debug)]
pub(super) enum Request {
    Publish {
        batch: EncodedBatch,
        done: Answer<()>,
    },
    /// Leases up to `most` messages.
    Take {
        dead: bool,
        most: usize,
        taken: Answer<Vec<Taken>>,
    },
    Settle {
        id: i64,
        lease: i64,
        end: End,
        /// None for a delivery that was dropped: nothing waits for its answer.
        done: Option<Answer<()>>,
    },
    /// Gives back all leases. No further request is answered.
    Close { done: Answer<()> },
}

impl Request {
    /// The message and the lease that the request settles.
    fn settled_lease(&self) -> Option<(i64, i64)> {
        match self {
            Self::Settle { id, lease, .. } => Some((*id, *lease)),
            _ => None,
        }
    }
}

/// A message that was leased, and the right to settle it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) message: Message,
    pub(super) lease: Lease,
}

/// The right to settle a message, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    id: i64,
    number: i64,
    /// Taken when it is settled.
    requests: Option<mpsc::UnboundedSender<Request>>,
}

impl Lease {
    /// Ends the delivery. Fails when another holder has the lease by now.
    pub(super) async fn settle(mut self, end: End) -> PortResult<()> {
        let Some(requests) = self.requests.take() else {
            return Ok(());
        };
        let (id, lease) = (self.id, self.number);
        ask(&requests, "queue.settle", |done| Request::Settle {
            id,
            lease,
            end,
            done: Some(done),
        })
        .await
    }

    /// Drops a lease that was never committed.
    fn forget(mut self) {
        self.requests = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(requests) = self.requests.take() {
            // A writer that has ended has given back everything.
            let _ = requests.send(give_back((self.id, self.number)));
        }
    }
}

/// Sends a request to the writer, and waits for its commit.
pub(super) async fn ask<T>(
    requests: &mpsc::UnboundedSender<Request>,
    operation: &'static str,
    request: impl FnOnce(Answer<T>) -> Request,
) -> PortResult<T> {
    let (answer, answered) = oneshot::channel();
    requests
        .send(request(answer))
        .map_err(|_| closed(operation))?;
    answered.await.unwrap_or_else(|_| Err(closed(operation)))
}

pub(super) fn closed(operation: &'static str) -> PortError {
    PortError::unavailable(operation, "the queue is closed")
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) database: Database,
    /// The name of this process in the leases.
    pub(super) holder: String,
    /// Weak, so that the writer ends with the last handle of the queue.
    pub(super) requests: mpsc::WeakUnboundedSender<Request>,
    /// Tells the consumers how many messages are available.
    pub(super) announce: watch::Sender<usize>,
    /// Leases whose settlement could not be committed. The next transaction gives them back.
    pub(super) orphans: Vec<(i64, i64)>,
}

/// An answer that waits for the commit.
enum Pending {
    Done(Option<Answer<()>>, PortResult<()>),
    Taken(Answer<Vec<Taken>>, Vec<Taken>),
}

impl Writer {
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        let mut renewals = tokio::time::interval(HOLDER_LIFE / 3);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                // Renewals first: a lease is free once its holder has expired.
                biased;
                _ = renewals.tick() => {
                    if let Err(error) = self.renew().await {
                        let error = port_error("queue.renew", error);
                        tracing::warn!(error = error.chain(), "the leases were not renewed");
                    }
                    continue;
                }
                request = inbox.recv() => request,
            };
            let Some(first) = first else {
                let _ = self.leave().await;
                return;
            };
            let mut group: Vec<Request> = self.orphans.drain(..).map(give_back).collect();
            group.push(first);
            let mut bytes = 0;
            while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
                let Ok(request) = inbox.try_recv() else { break };
                if let Request::Publish { batch, .. } = &request {
                    bytes += batch.body.len();
                }
                group.push(request);
            }
            if let Some(closed) = self.carry_out(group).await {
                inbox.close();
                let given_back = self.leave().await;
                let given_back = given_back.map_err(|error| port_error("queue.close", error));
                let _ = closed.send(given_back);
                return;
            }
        }
    }

    /// Carries out a group in one transaction, and answers after the commit. Returns the answer
    /// that a request to close waits for.
    async fn carry_out(&mut self, group: Vec<Request>) -> Option<Answer<()>> {
        // Leasing makes no message available. If it woke the consumers, they would never rest.
        let changes = group
            .iter()
            .any(|request| !matches!(request, Request::Take { .. }));
        let leases: Vec<_> = group.iter().filter_map(Request::settled_lease).collect();
        let mut closing = None;
        let mut requests = Vec::with_capacity(group.len());
        for request in group {
            match request {
                Request::Close { done } => closing = Some(done),
                request => requests.push(request),
            }
        }

        let (answers, committed) = self.transact(requests, changes).await;
        let committed = committed.map_err(|error| port_error("queue.commit", error));
        for answer in answers {
            answer.send(committed.as_ref().err());
        }
        match committed {
            Ok(available) if changes => drop(self.announce.send_replace(available)),
            Ok(_) => {}
            Err(_) => self.orphans = leases,
        }
        closing
    }

    /// Returns the answers to all requests, and how many messages are available after the commit.
    async fn transact(
        &self,
        requests: Vec<Request>,
        changes: bool,
    ) -> (Vec<Pending>, sqlx::Result<usize>) {
        let mut answers = Vec::with_capacity(requests.len());
        if requests.is_empty() {
            return (answers, Ok(0));
        }
        let mut transaction = self.database.begin().await;
        for request in requests {
            // After a failure the transaction is lost, and further requests only get an answer.
            let connection = transaction.as_deref_mut().ok();
            let (answer, applied) = self.apply(connection, request).await;
            answers.push(answer);
            if let Err(error) = applied {
                transaction = Err(error);
            }
        }
        let committed = match transaction {
            Ok(transaction) => commit(transaction, changes).await,
            Err(error) => Err(error),
        };
        (answers, committed)
    }

    /// Carries out one request. Without a connection, only prepares its answer.
    async fn apply(
        &self,
        connection: Option<&mut SqliteConnection>,
        request: Request,
    ) -> (Pending, sqlx::Result<()>) {
        match request {
            Request::Publish { batch, done } => {
                // A publisher that has given up waiting publishes again.
                let is_wanted = !done.is_closed();
                let done = Pending::Done(Some(done), Ok(()));
                let Some(connection) = connection.filter(|_| is_wanted) else {
                    return (done, Ok(()));
                };
                (done, messages::insert(connection, &batch).await)
            }
            Request::Take { dead, most, taken } => {
                let Some(connection) = connection else {
                    return (Pending::Taken(taken, Vec::new()), Ok(()));
                };
                match messages::lease(connection, &self.holder, dead, most).await {
                    Ok(leased) => (Pending::Taken(taken, self.taken(leased)), Ok(())),
                    Err(error) => (Pending::Taken(taken, Vec::new()), Err(error)),
                }
            }
            Request::Settle {
                id,
                lease,
                end,
                done,
            } => {
                let Some(connection) = connection else {
                    return (Pending::Done(done, Ok(())), Ok(()));
                };
                match messages::settle(connection, &self.holder, id, lease, end).await {
                    Ok(true) => (Pending::Done(done, Ok(())), Ok(())),
                    Ok(false) => {
                        let reason = "the lease is over and somebody else has the message";
                        let lost = PortError::unavailable("queue.settle", reason);
                        (Pending::Done(done, Err(lost)), Ok(()))
                    }
                    Err(error) => (Pending::Done(done, Ok(())), Err(error)),
                }
            }
            // Handled by the caller.
            Request::Close { done } => (Pending::Done(Some(done), Ok(())), Ok(())),
        }
    }

    fn taken(&self, leased: Vec<Message>) -> Vec<Taken> {
        let taken = |message: Message| Taken {
            lease: Lease {
                id: message.id,
                number: message.lease,
                requests: self.requests.upgrade(),
            },
            message,
        };
        leased.into_iter().map(taken).collect()
    }

    async fn renew(&self) -> sqlx::Result<()> {
        let mut transaction = self.database.begin().await?;
        messages::renew(&mut transaction, &self.holder).await?;
        transaction.commit().await
    }

    async fn leave(&self) -> sqlx::Result<()> {
        let mut transaction = self.database.begin().await?;
        messages::leave(&mut transaction, &self.holder).await?;
        transaction.commit().await
    }
}

impl Pending {
    /// Answers with the outcome of the request, or with the failure of the whole transaction.
    fn send(self, failed: Option<&PortError>) {
        // A caller that has stopped waiting needs no answer. The leases in an answer that is
        // dropped are given back.
        match (self, failed) {
            (Self::Done(Some(answer), result), None) => drop(answer.send(result)),
            (Self::Taken(answer, taken), None) => drop(answer.send(Ok(taken))),
            (Self::Done(Some(answer), _), Some(error)) => drop(answer.send(Err(copy(error)))),
            (Self::Taken(answer, taken), Some(error)) => {
                // A transaction that failed leased nothing.
                taken.into_iter().for_each(|taken| taken.lease.forget());
                drop(answer.send(Err(copy(error))));
            }
            (Self::Done(None, _), _) => {}
        }
    }
}

/// Returns how many messages are available; they are counted only where they may have changed.
async fn commit(mut transaction: WriteTransaction, changes: bool) -> sqlx::Result<usize> {
    let available = match changes {
        true => messages::count(&mut transaction, LONG).await?,
        false => 0,
    };
    transaction.commit().await?;
    Ok(available)
}

fn give_back((id, lease): (i64, i64)) -> Request {
    Request::Settle {
        id,
        lease,
        end: End::Release,
        done: None,
    }
}

/// The same error for another caller.
fn copy(error: &PortError) -> PortError {
    let cause = error.source().map(ToString::to_string);
    PortError::new(error.kind(), "queue.commit", cause.unwrap_or_default())
}
