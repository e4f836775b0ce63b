//! The one task that writes. It executes all waiting requests in one transaction, and answers them
//! after the commit.

use std::error::Error;
use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};

use super::super::MessageKind;
use super::messages::{self, Holder, Message, Outcome};
use crate::batch::EncodedBatch;
use crate::error::{PortError, PortResult};
use crate::sqlite::{Database, WriteTransaction, port_error};

/// The most requests of one transaction.
const GROUP_REQUESTS: usize = 128;

/// A transaction takes no further request once its bodies have this many bytes.
const GROUP_BYTES: usize = 8 << 20;

/// A queue with this many messages is long: they hold a quarter of a million rows.
pub(super) const LONG_QUEUE: usize = 256;

type Answer<T> = oneshot::Sender<PortResult<T>>;

/// A request to the writer.
#[derive(Debug)]
pub(super) enum Request {
    Publish {
        batch: EncodedBatch,
        done: Answer<()>,
    },
    /// Leases up to `limit` messages.
    Lease {
        kind: MessageKind,
        limit: usize,
        done: Answer<Vec<Leased>>,
    },
    Settle {
        id: i64,
        lease: i64,
        outcome: Outcome,
        /// `None` for a dropped delivery, whose settlement needs no answer.
        done: Option<Answer<()>>,
    },
    /// Releases all leases and ends the writer.
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

/// A leased message, and the right to settle it.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) message: Message,
    pub(super) lease: Lease,
}

/// The right to settle a message. Dropping it releases the message.
#[derive(Debug)]
pub(super) struct Lease {
    id: i64,
    number: i64,
    /// `None` once the message is settled.
    requests: Option<mpsc::UnboundedSender<Request>>,
}

impl Lease {
    /// Settles the message. Fails if the lease has passed to another holder.
    pub(super) async fn settle(mut self, outcome: Outcome) -> PortResult<()> {
        let Some(requests) = self.requests.take() else {
            return Ok(());
        };
        let (id, lease) = (self.id, self.number);
        ask(&requests, "queue.settle", |done| Request::Settle {
            id,
            lease,
            outcome,
            done: Some(done),
        })
        .await
    }

    /// Drops a lease that was never committed, without releasing it.
    fn forget(mut self) {
        self.requests = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(requests) = self.requests.take() {
            // This fails if the writer has ended, and then it has released its leases already.
            let _ = requests.send(release((self.id, self.number)));
        }
    }
}

/// Sends a request to the writer, and waits for the commit.
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
    pub(super) holder: Holder,
    /// Weak, so that the writer ends with the last handle of the queue.
    pub(super) requests: mpsc::WeakUnboundedSender<Request>,
    /// Sends the number of messages to consumers and publishers.
    pub(super) announce: watch::Sender<usize>,
    /// The time from the end of one renewal of the leases to the next.
    pub(super) renewal_pause: Duration,
    /// Leases whose settlement could not be committed. The next transaction releases them.
    pub(super) unreleased: Vec<(i64, i64)>,
}

/// An answer that waits for the commit.
enum Pending {
    Done(Option<Answer<()>>, PortResult<()>),
    Leased(Answer<Vec<Leased>>, Vec<Leased>),
}

impl Writer {
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        // The first tick of an interval may come after the first request.
        self.renew().await;
        let mut renewals = tokio::time::interval(self.renewal_pause);
        renewals.reset();
        loop {
            let first = tokio::select! {
                // Renewals first: the leases of an expired holder pass to others.
                biased;
                _ = renewals.tick() => {
                    self.renew().await;
                    // A renewal may wait for a lock longer than the pause. If the pause began
                    // before it, the next renewal would be due at once, and requests would starve.
                    renewals.reset();
                    continue;
                }
                request = inbox.recv() => request,
            };
            let Some(first) = first else {
                let _ = self.release_all().await;
                return;
            };
            let mut group: Vec<Request> = self.unreleased.drain(..).map(release).collect();
            group.push(first);
            let mut bytes = 0;
            while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
                let Ok(request) = inbox.try_recv() else { break };
                if let Request::Publish { batch, .. } = &request {
                    bytes += batch.body.len();
                }
                group.push(request);
            }
            if let Some(done) = self.execute(group).await {
                inbox.close();
                let released = self.release_all().await;
                let released = released.map_err(|error| port_error("queue.close", error));
                let _ = done.send(released);
                return;
            }
        }
    }

    /// Executes a group of requests in one transaction, and answers them after the commit. Returns
    /// the answer channel of a close request, if the group has one.
    async fn execute(&mut self, group: Vec<Request>) -> Option<Answer<()>> {
        // A lease makes no message available. If it woke the consumers, they would poll without a
        // pause.
        let changes = group
            .iter()
            .any(|request| !matches!(request, Request::Lease { .. }));
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
            Ok(count) if changes => drop(self.announce.send_replace(count)),
            Ok(_) => {}
            Err(_) => self.unreleased = leases,
        }
        closing
    }

    /// Returns the answers to all requests, and the number of messages after the commit.
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
            // After a failure the transaction is lost, so further requests only get an answer.
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

    /// Executes one request. Without a connection, only prepares its answer.
    async fn apply(
        &self,
        connection: Option<&mut SqliteConnection>,
        request: Request,
    ) -> (Pending, sqlx::Result<()>) {
        match request {
            Request::Publish { batch, done } => {
                // A publisher whose publish timed out publishes again.
                let is_wanted = !done.is_closed();
                let done = Pending::Done(Some(done), Ok(()));
                let Some(connection) = connection.filter(|_| is_wanted) else {
                    return (done, Ok(()));
                };
                (
                    done,
                    messages::insert(connection, &self.holder.installation, &batch).await,
                )
            }
            Request::Lease { kind, limit, done } => {
                let Some(connection) = connection else {
                    return (Pending::Leased(done, Vec::new()), Ok(()));
                };
                match messages::lease(connection, &self.holder, kind, limit).await {
                    Ok(leased) => (Pending::Leased(done, self.with_leases(leased)), Ok(())),
                    Err(error) => (Pending::Leased(done, Vec::new()), Err(error)),
                }
            }
            Request::Settle {
                id,
                lease,
                outcome,
                done,
            } => {
                let Some(connection) = connection else {
                    return (Pending::Done(done, Ok(())), Ok(()));
                };
                match messages::settle(connection, &self.holder.id, id, lease, outcome).await {
                    Ok(true) => (Pending::Done(done, Ok(())), Ok(())),
                    Ok(false) => {
                        let reason = "the lease expired and passed to another holder";
                        let lost = PortError::unavailable("queue.settle", reason);
                        (Pending::Done(done, Err(lost)), Ok(()))
                    }
                    Err(error) => (Pending::Done(done, Ok(())), Err(error)),
                }
            }
            // `execute` removes close requests from the group.
            Request::Close { done } => (Pending::Done(Some(done), Ok(())), Ok(())),
        }
    }

    fn with_leases(&self, messages: Vec<Message>) -> Vec<Leased> {
        let leased = |message: Message| Leased {
            lease: Lease {
                id: message.id,
                number: message.lease,
                requests: self.requests.upgrade(),
            },
            message,
        };
        messages.into_iter().map(leased).collect()
    }

    /// Writes the heartbeat. A failure is logged, and the next renewal tries again.
    async fn renew(&self) {
        if let Err(error) = self.try_renew().await {
            let error = port_error("queue.renew", error);
            tracing::warn!(
                error = error.chain(),
                "could not renew the leases; they expire without a renewal"
            );
        }
    }

    async fn try_renew(&self) -> sqlx::Result<()> {
        let mut transaction = self.database.begin().await?;
        messages::renew(&mut transaction, &self.holder.id).await?;
        transaction.commit().await
    }

    async fn release_all(&self) -> sqlx::Result<()> {
        let mut transaction = self.database.begin().await?;
        messages::release_all(&mut transaction, &self.holder.id).await?;
        transaction.commit().await
    }
}

impl Pending {
    /// Answers with the outcome of the request, or with the failure of the whole transaction.
    fn send(self, failed: Option<&PortError>) {
        // The caller may have stopped waiting. Dropping the answer then releases its leases.
        match (self, failed) {
            (Self::Done(Some(answer), result), None) => drop(answer.send(result)),
            (Self::Leased(answer, leased), None) => drop(answer.send(Ok(leased))),
            (Self::Done(Some(answer), _), Some(error)) => drop(answer.send(Err(copy(error)))),
            (Self::Leased(answer, leased), Some(error)) => {
                // A transaction that failed leased nothing.
                leased.into_iter().for_each(|leased| leased.lease.forget());
                drop(answer.send(Err(copy(error))));
            }
            (Self::Done(None, _), _) => {}
        }
    }
}

/// Commits, and returns the number of messages. It is zero where the number cannot have changed.
async fn commit(mut transaction: WriteTransaction, changes: bool) -> sqlx::Result<usize> {
    let count = match changes {
        true => messages::count(&mut transaction, LONG_QUEUE).await?,
        false => 0,
    };
    transaction.commit().await?;
    Ok(count)
}

fn release((id, lease): (i64, i64)) -> Request {
    Request::Settle {
        id,
        lease,
        outcome: Outcome::Release,
        done: None,
    }
}

/// The same error for another caller. A source cannot be cloned, so its text is kept.
fn copy(error: &PortError) -> PortError {
    let cause = error.source().map(ToString::to_string);
    PortError::new(error.kind(), "queue.commit", cause.unwrap_or_default())
}
