//! The one task that writes. It takes all requests that wait, carries them out in one transaction, and answers after the
//! commit.

use std::error::Error;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::LONG;
use super::messages::{self, End, HOLDER_LIFE, Message};
use crate::batch::EncodedBatch;
use crate::error::{PortError, PortResult};
use crate::sqlite::{Database, port_error};

/// Requests in one transaction at most, and bytes of bodies after which no more are taken: a commit takes some milliseconds.
const GROUP_REQUESTS: usize = 128;
const GROUP_BYTES: usize = 8 << 20;

type Answer<T> = oneshot::Sender<PortResult<T>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Publish {
        batch: EncodedBatch,
        done: Answer<()>,
    },
    /// Leases on up to so many messages.
    Take {
        dead: bool,
        most: usize,
        taken: Answer<Vec<Taken>>,
    },
    Settle {
        id: i64,
        lease: i64,
        end: End,
        /// Nobody waits for a delivery that was dropped.
        done: Option<Answer<()>>,
    },
    /// Gives back all leases; no further request is answered.
    Close { done: Answer<()> },
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
    /// Ends the delivery; fails when the lease is somebody else's by now.
    pub(super) async fn settle(mut self, end: End) -> PortResult<()> {
        let Some(requests) = self.requests.take() else {
            return Ok(());
        };
        let (id, lease) = (self.id, self.number);
        super::ask(&requests, "queue.settle", |done| Request::Settle {
            id,
            lease,
            end,
            done: Some(done),
        })
        .await
    }

    /// It never came to be.
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

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) database: Database,
    /// Who we are in the leases.
    pub(super) holder: String,
    /// For the leases; weak, so that the writer ends with the last handle of the queue.
    pub(super) requests: mpsc::WeakUnboundedSender<Request>,
    /// How many messages there are, as far as anybody wants to know.
    pub(super) announce: watch::Sender<usize>,
    /// Leases whose settlement could not be written: they are given back as soon as something can.
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
                // Renewals first: a lease whose holder nobody knows of is free.
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

    /// One transaction. Returns who asked to close, if anybody did.
    async fn carry_out(&mut self, group: Vec<Request>) -> Option<Answer<()>> {
        let mut closing = None;
        let mut pending = Vec::with_capacity(group.len());
        let mut opened = None;
        let mut failure: Option<sqlx::Error> = None;
        let mut settled = Vec::new();
        // Looking for messages makes none available: if it woke those who look, they would never rest.
        let mut news = false;
        for request in group {
            news |= !matches!(request, Request::Take { .. });
            if let Request::Settle { id, lease, .. } = &request {
                settled.push((*id, *lease));
            }
            if let Request::Close { done } = request {
                closing = Some(done);
                continue;
            }
            // Once something has failed, so has the transaction: the rest is only told.
            if failure.is_none() && opened.is_none() {
                match self.database.begin().await {
                    Ok(writing) => opened = Some(writing),
                    Err(error) => failure = Some(error),
                }
            }
            let connection = opened.as_deref_mut().filter(|_| failure.is_none());
            match self.apply(connection, request).await {
                (answer, Ok(())) => pending.push(answer),
                (answer, Err(error)) => {
                    pending.push(answer);
                    failure = Some(error);
                }
            }
        }
        let mut messages = 0;
        if let Some(mut writing) = opened
            && failure.is_none()
        {
            let committed = async {
                if news {
                    messages = messages::count(&mut writing, LONG).await?;
                }
                writing.commit().await
            };
            failure = committed.await.err();
        }
        let failed = failure.map(|error| port_error("queue.commit", error));
        for answer in pending {
            answer.send(failed.as_ref());
        }
        match failed {
            None if news => drop(self.announce.send_replace(messages)),
            None => {}
            Some(_) => self.orphans = settled,
        }
        closing
    }

    /// Carries out one request, or, without a connection, only prepares its answer.
    async fn apply(
        &self,
        connection: Option<&mut SqliteConnection>,
        request: Request,
    ) -> (Pending, sqlx::Result<()>) {
        match request {
            Request::Publish { batch, done } => {
                // Whoever has given up waiting publishes again.
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
            // Handled by the caller, which ends with it.
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
        let mut writing = self.database.begin().await?;
        messages::renew(&mut writing, &self.holder).await?;
        writing.commit().await
    }

    async fn leave(&self) -> sqlx::Result<()> {
        let mut writing = self.database.begin().await?;
        messages::leave(&mut writing, &self.holder).await?;
        writing.commit().await
    }
}

impl Pending {
    /// Answers, with the failure of the whole transaction if there was one.
    fn send(self, failed: Option<&PortError>) {
        // Whoever does not wait any more needs no answer; leases in it go back by themselves.
        match (self, failed) {
            (Self::Done(Some(answer), result), None) => drop(answer.send(result)),
            (Self::Taken(answer, taken), None) => drop(answer.send(Ok(taken))),
            (Self::Done(Some(answer), _), Some(error)) => drop(answer.send(Err(copy(error)))),
            (Self::Taken(answer, taken), Some(error)) => {
                // What was leased in a transaction that failed was not leased.
                taken.into_iter().for_each(|taken| taken.lease.forget());
                drop(answer.send(Err(copy(error))));
            }
            (Self::Done(None, _), _) => {}
        }
    }
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
