//! The one task that writes. It takes all requests that wait, carries them out in one transaction, and answers after the
//! commit.

use std::error::Error;
use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::batch::{BatchId, EncodedBatch};
use crate::error::{PortError, PortResult};
use crate::sqlite::{Database, now_ms, port_error};

/// A holder that has been silent for this long is gone.
const HOLDER_LIFE: Duration = Duration::from_secs(30);

/// Requests in one transaction at most, and bytes of bodies after which no more are taken: a commit takes some milliseconds.
const GROUP_REQUESTS: usize = 128;
const GROUP_BYTES: usize = 8 << 20;

/// Deliveries whose holder died before the message is called dead: it may be what kills them.
const UNSETTLED_LIMIT: i64 = 20;

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

/// How a delivery ends.
#[derive(Debug, Clone)]
pub(super) enum End {
    Ack,
    Retry(Duration),
    DeadLetter(String),
    /// Dropped: somebody else may have it.
    Release,
}

/// A message that was leased, without its body.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) lease: Lease,
    pub(super) batch: BatchId,
    pub(super) attempt: u32,
    pub(super) deliveries: i64,
    pub(super) reason: Option<String>,
}

/// The right to settle a message, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: i64,
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
}

impl Lease {
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
    pub(super) announce: watch::Sender<u64>,
    /// Leases whose settlement could not be written: they are given back as soon as something can.
    pub(super) orphans: Vec<(i64, i64)>,
}

/// Leases messages. Dead ones are asked for literally, since only then does SQLite use their index; the queue may be long.
macro_rules! take {
    ($dead:literal) => {
        concat!(
            "UPDATE messages
             SET holder = $1, lease = lease + 1, deliveries = deliveries + 1, unsettled = unsettled + 1
             WHERE id IN (
                 SELECT id FROM messages
                 WHERE dead = ",
            $dead,
            " AND available_at <= $2
                   AND (holder IS NULL
                        OR holder <> $1 AND holder NOT IN (SELECT id FROM holders WHERE expires_at > $2))
                 ORDER BY id LIMIT $3)
             RETURNING id, lease, upload_id, epoch, seq, attempt, deliveries, unsettled, reason"
        )
    };
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
        if let Some(writing) = opened
            && failure.is_none()
        {
            failure = writing.commit().await.err();
        }
        let failed = failure.map(|error| port_error("queue.commit", error));
        for answer in pending {
            answer.send(failed.as_ref());
        }
        match failed {
            None if news => self.announce.send_modify(|changes| *changes += 1),
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
                (done, insert(connection, &batch).await)
            }
            Request::Take { dead, most, taken } => {
                let Some(connection) = connection else {
                    return (Pending::Taken(taken, Vec::new()), Ok(()));
                };
                match self.take(connection, dead, most).await {
                    Ok(messages) => (Pending::Taken(taken, messages), Ok(())),
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
                match self.settle(connection, id, lease, end).await {
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

    async fn take(
        &self,
        connection: &mut SqliteConnection,
        dead: bool,
        most: usize,
    ) -> sqlx::Result<Vec<Taken>> {
        type Row = (i64, i64, String, i32, u32, u32, i64, i64, Option<String>);
        let sql = if dead { take!("1") } else { take!("0") };
        let mut rows: Vec<Row> = sqlx::query_as(sql)
            .bind(&self.holder)
            .bind(now_ms())
            .bind(most as i64)
            .fetch_all(&mut *connection)
            .await?;
        // RETURNING promises no order.
        rows.sort_unstable_by_key(|row| row.0);
        let mut taken = Vec::with_capacity(rows.len());
        for (id, number, upload, epoch, seq, attempt, deliveries, unsettled, reason) in rows {
            if unsettled > UNSETTLED_LIMIT && !dead {
                bury(connection, id).await?;
                continue;
            }
            let upload = upload.parse().map_err(|error| sqlx::Error::ColumnDecode {
                index: "upload_id".to_owned(),
                source: Box::new(error),
            })?;
            taken.push(Taken {
                lease: Lease {
                    id,
                    number,
                    requests: self.requests.upgrade(),
                },
                batch: BatchId { upload, epoch, seq },
                attempt,
                deliveries,
                reason,
            });
        }
        Ok(taken)
    }

    /// False when the lease is not ours any more.
    async fn settle(
        &self,
        connection: &mut SqliteConnection,
        id: i64,
        lease: i64,
        end: End,
    ) -> sqlx::Result<bool> {
        let acknowledged = matches!(end, End::Ack);
        let query = match end {
            End::Ack => {
                sqlx::query("DELETE FROM messages WHERE id = $1 AND lease = $2 AND holder = $3")
            }
            End::Retry(_) => sqlx::query(
                "UPDATE messages SET holder = NULL, attempt = attempt + 1, deliveries = 0, unsettled = 0, available_at = $4
                 WHERE id = $1 AND lease = $2 AND holder = $3",
            ),
            End::DeadLetter(_) => sqlx::query(
                "UPDATE messages SET holder = NULL, dead = 1, deliveries = 0, unsettled = 0, reason = $4
                 WHERE id = $1 AND lease = $2 AND holder = $3",
            ),
            End::Release => sqlx::query(
                "UPDATE messages SET holder = NULL, unsettled = unsettled - 1
                 WHERE id = $1 AND lease = $2 AND holder = $3",
            ),
        };
        let query = query.bind(id).bind(lease).bind(&self.holder);
        let query = match end {
            End::Retry(delay) => {
                let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                query.bind(now_ms().saturating_add(delay_ms))
            }
            End::DeadLetter(reason) => query.bind(reason),
            End::Ack | End::Release => query,
        };
        let ours = query.execute(&mut *connection).await?.rows_affected() > 0;
        if ours && acknowledged {
            sqlx::query("DELETE FROM bodies WHERE id = $1")
                .bind(id)
                .execute(connection)
                .await?;
        }
        Ok(ours)
    }

    /// Says that we live, and forgets those who do not.
    async fn renew(&self) -> sqlx::Result<()> {
        let mut writing = self.database.begin().await?;
        let life_ms = HOLDER_LIFE.as_millis() as i64;
        sqlx::query("DELETE FROM holders WHERE expires_at <= $1")
            .bind(now_ms())
            .execute(&mut *writing)
            .await?;
        sqlx::query(
            "INSERT INTO holders VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET expires_at = $2",
        )
        .bind(&self.holder)
        .bind(now_ms() + life_ms)
        .execute(&mut *writing)
        .await?;
        writing.commit().await
    }

    /// Gives back what is leased: an orderly end charges nobody.
    async fn leave(&self) -> sqlx::Result<()> {
        let mut writing = self.database.begin().await?;
        sqlx::query(
            "UPDATE messages SET holder = NULL, unsettled = unsettled - 1 WHERE holder = $1",
        )
        .bind(&self.holder)
        .execute(&mut *writing)
        .await?;
        sqlx::query("DELETE FROM holders WHERE id = $1")
            .bind(&self.holder)
            .execute(&mut *writing)
            .await?;
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

async fn insert(connection: &mut SqliteConnection, batch: &EncodedBatch) -> sqlx::Result<()> {
    // Available since ever: a clock that is set back must not make it wait.
    let inserted = sqlx::query(
        "INSERT INTO messages (available_at, upload_id, epoch, seq) VALUES (0, $1, $2, $3)",
    )
    .bind(batch.id.upload.to_string())
    .bind(batch.id.epoch)
    .bind(batch.id.seq)
    .execute(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO bodies (id, body) VALUES ($1, $2)")
        .bind(inserted.last_insert_rowid())
        .bind(&batch.body[..])
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes a message that nobody survives a dead letter.
async fn bury(connection: &mut SqliteConnection, id: i64) -> sqlx::Result<()> {
    let reason = format!(
        "it was delivered {UNSETTLED_LIMIT} times and whoever had it was not heard of again"
    );
    sqlx::query(
        "UPDATE messages SET holder = NULL, dead = 1, deliveries = 0, unsettled = 0, reason = $2 WHERE id = $1",
    )
    .bind(id)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(())
}
