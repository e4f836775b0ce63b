//! Live counters in Redis: one hash and one bitmap per upload. Each change is one atomic script.
//!
//! The hash has the server's `run_id`, which changes with every restart. A hash with another
//! `run_id` counts as absent and is rebuilt, because Redis may have restarted from an old snapshot.
//!
//! A restore runs several scripts, because Redis answers no other client while a script runs. Until
//! the last script, the field `run` differs from the `run_id`, so no reader sees a part of the
//! figures. Reports that arrive meanwhile are counted in the same hash and bitmap.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{self, AsyncCommands, FromRedisValue, Script, ScriptInvocation};
use deadpool_redis::{Connection, Manager, Pool, Runtime};
use uuid::Uuid;

use super::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::metrics::calls;
use crate::settings::SecretUrl;
use crate::sync::lock;
use crate::upload::UploadKey;

/// The time limit of a connection and of a script. It is short, because a poll can do without live
/// counters.
const TIMEOUT: Duration = Duration::from_millis(400);

/// How many batches one script restores. It takes Redis a few milliseconds.
const PIECE_BATCHES: usize = 5_000;

/// The time limit of a connection with TLS, whose client also loads the certificates of the system.
const TLS_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of the counters in Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://…`, or `rediss://…` for TLS
    pub url: SecretUrl,
    /// The prefix of every key.
    pub prefix: String,
    /// The time from the last change of an upload's keys to their expiry.
    pub ttl: Duration,
}

/// [`ProgressStore`] on Redis.
pub struct RedisProgress {
    pool: Pool,
    /// The server's `run_id` at the newest connection.
    run_id: Arc<Mutex<String>>,
    prefix: String,
    ttl_ms: u64,
    received: Script,
    stored: Script,
    restore: Script,
    read: Script,
}

impl std::fmt::Debug for RedisProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisProgress")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The start of every script.
///
/// - `KEYS`: the hash, the bitmap.
/// - `ARGV`: run id, epoch, time to live in milliseconds, then the script's own arguments.
/// - `standing`: 0 for absent counters, 1 for counters of this epoch, 2 for those of a newer epoch,
///   3 for counters of this epoch that are being restored.
///
/// A hash whose bitmap was evicted counts as absent, because it would count batches twice.
const PRELUDE: &str = "
local known = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'batches', 'life')
local restoring = 'restoring:' .. ARGV[1]
local standing = 1
if known[1] ~= ARGV[1] and known[1] ~= restoring then standing = 0
elseif tonumber(known[2]) < tonumber(ARGV[2]) then standing = 0
elseif tonumber(known[2]) > tonumber(ARGV[2]) then standing = 2
elseif tonumber(known[3]) > 0 and redis.call('EXISTS', KEYS[2]) == 0 then standing = 0
elseif known[1] == restoring then standing = 3 end
local function raise(field, value)
  local now = tonumber(redis.call('HGET', KEYS[1], field) or 0)
  if tonumber(value) > now then redis.call('HSET', KEYS[1], field, value) end
end
local function count(first)
  local rows, rejected, batches = 0, 0, 0
  for i = first, #ARGV, 3 do
    if redis.call('SETBIT', KEYS[2], ARGV[i], 1) == 0 then
      rows = rows + tonumber(ARGV[i + 1])
      rejected = rejected + tonumber(ARGV[i + 2])
      batches = batches + 1
    end
  end
  if rejected > 0 then redis.call('HINCRBY', KEYS[1], 'rejected', rejected) end
  if batches > 0 then
    redis.call('HINCRBY', KEYS[1], 'rows', rows)
    redis.call('HINCRBY', KEYS[1], 'batches', batches)
  end
end
local function keep()
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
";

const RECEIVED: &str = "
if standing % 2 == 1 then raise('read', ARGV[4]); raise('bytes', ARGV[5]); keep() end
return standing
";

const STORED: &str = "
if standing % 2 == 1 then count(4); keep() end
return standing
";

/// Restores one piece of a snapshot.
///
/// - `ARGV[6]`: the `life`, an id that each newly created hash gets. The first piece proposes it,
///   and the other pieces must find the same one.
/// - `ARGV[7]`, `ARGV[8]`: 1 for the first piece, 1 for the last piece.
/// - Returns the standing and the life of the hash.
///
/// Readers see the figures only after the last piece of one caller. That caller has put all its
/// pieces into the same hash, so the figures never go down. A hash that was lost and created again
/// between two pieces lacks the earlier ones, and has another `life`.
///
/// No batch counts twice, because the pieces and the reports of workers share the bitmap. This also
/// holds for several callers that restore the same hash.
const RESTORE: &str = "
if standing == 2 then return { 2, '' } end
local life = known[4] or ''
if standing == 0 then
  if ARGV[7] ~= '1' then return { 0, '' } end
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'run', restoring, 'life', ARGV[6], 'epoch', ARGV[2], 'read', 0, 'bytes', 0, 'rows', 0, 'batches', 0)
  life = ARGV[6]
elseif ARGV[7] ~= '1' and life ~= ARGV[6] then
  return { 0, '' }
end
raise('read', ARGV[4]); raise('bytes', ARGV[5])
count(9)
if ARGV[8] == '1' then redis.call('HSET', KEYS[1], 'run', ARGV[1]) end
keep()
return { 1, life }
";

/// A hash without rejected rows has no field `rejected`.
const READ: &str = "
if standing ~= 1 then return {} end
local f = redis.call('HMGET', KEYS[1], 'read', 'bytes', 'rows', 'rejected', 'batches')
return { tonumber(f[1]), tonumber(f[2]), tonumber(f[3]), tonumber(f[4] or 0), tonumber(f[5]) }
";

impl RedisProgress {
    /// Prepares the pool. Connections open at first use, so that a program starts without Redis.
    pub fn new(settings: RedisSettings) -> PortResult<Self> {
        const OPERATION: &str = "progress.connect";
        // redis takes rustls' default provider, and rustls panics without one. An error means that
        // another crate has installed a provider already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let manager = Manager::new(settings.url.expose())
            .map_err(|error| PortError::new(ErrorKind::Invalid, OPERATION, error))?;
        let run_id = Arc::new(Mutex::new(String::new()));
        let newest = Arc::clone(&run_id);
        let note_run_id = deadpool_redis::Hook::async_fn(move |connection: &mut _, _| {
            let newest = Arc::clone(&newest);
            Box::pin(async move {
                let run_id = server_run_id(connection)
                    .await
                    .map_err(deadpool_redis::HookError::Backend)?;
                *lock(&newest) = run_id;
                Ok(())
            })
        });
        let connect_timeout = match settings.url.scheme() {
            "rediss" => TLS_CONNECT_TIMEOUT,
            _ => TIMEOUT,
        };
        let pool = Pool::builder(manager)
            .max_size(4)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(TIMEOUT))
            .create_timeout(Some(connect_timeout))
            .recycle_timeout(Some(TIMEOUT))
            .post_create(note_run_id)
            .build()
            .map_err(|error| PortError::new(ErrorKind::Internal, OPERATION, error))?;
        let script = |body: &str| Script::new(&format!("{PRELUDE}{body}"));
        Ok(Self {
            pool,
            run_id,
            prefix: settings.prefix,
            ttl_ms: u64::try_from(settings.ttl.as_millis()).unwrap_or(u64::MAX),
            received: script(RECEIVED),
            stored: script(STORED),
            restore: script(RESTORE),
            read: script(READ),
        })
    }

    /// A connection that has just answered a ping, or is new.
    async fn connection(&self) -> Result<Connection, Failure> {
        let connection = tokio::time::timeout(TIMEOUT, self.pool.get()).await;
        Ok(connection.map_err(|_| Failure::Silent)??)
    }

    /// A call with the keys and arguments of every script. The caller gets its connection first,
    /// because a new connection updates the `run_id`.
    fn call<'a>(&self, script: &'a Script, upload: UploadKey) -> ScriptInvocation<'a> {
        let UploadKey { id, epoch } = upload;
        // The braces put both keys into one slot of a Redis cluster.
        let mut call = script.key(format!("{}:{{{id}}}:counters", self.prefix));
        call.key(format!("{}:{{{id}}}:batches", self.prefix));
        let run_id = lock(&self.run_id);
        call.arg(run_id.as_str()).arg(epoch.get()).arg(self.ttl_ms);
        call
    }
}

/// Runs a script within its time limit.
async fn run<T: FromRedisValue>(
    call: &ScriptInvocation<'_>,
    connection: &mut Connection,
) -> Result<T, Failure> {
    let answer = tokio::time::timeout(TIMEOUT, call.invoke_async(connection)).await;
    Ok(answer.map_err(|_| Failure::Slow)??)
}

async fn server_run_id(
    connection: &mut redis::aio::MultiplexedConnection,
) -> redis::RedisResult<String> {
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query_async(connection)
        .await?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(run_id.unwrap_or("unknown").trim().to_owned())
}

#[async_trait]
impl ProgressStore for RedisProgress {
    async fn received(
        &self,
        upload: UploadKey,
        rows_read: u64,
        bytes_received: u64,
    ) -> PortResult<Presence> {
        mapped("progress.received", async {
            let mut connection = self.connection().await?;
            let mut call = self.call(&self.received, upload);
            call.arg(rows_read).arg(bytes_received);
            Ok(presence(run(&call, &mut connection).await?))
        })
        .await
    }

    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence> {
        mapped("progress.stored", async {
            let mut connection = self.connection().await?;
            let mut call = self.call(&self.stored, upload);
            add_batches(&mut call, batches);
            Ok(presence(run(&call, &mut connection).await?))
        })
        .await
    }

    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()> {
        mapped("progress.restore", async {
            let mut life = Uuid::new_v4().to_string();
            let mut rest = snapshot.stored.as_slice();
            let mut is_first = true;
            loop {
                let (piece, after) = rest.split_at(rest.len().min(PIECE_BATCHES));
                let is_last = after.is_empty();
                let mut connection = self.connection().await?;
                let mut call = self.call(&self.restore, upload);
                call.arg(snapshot.rows_read).arg(snapshot.bytes_received);
                call.arg(&life).arg(is_first).arg(is_last);
                add_batches(&mut call, piece);
                let (standing, found): (i64, String) = run(&call, &mut connection).await?;
                match standing {
                    0 => return Err(Failure::Vanished),
                    1 if !is_last => {}
                    _ => return Ok(()),
                }
                (rest, life, is_first) = (after, found, false);
            }
        })
        .await
    }

    async fn read(&self, upload: UploadKey) -> PortResult<Option<Counters>> {
        mapped("progress.read", async {
            let mut connection = self.connection().await?;
            let call = self.call(&self.read, upload);
            let figures: Vec<u64> = run(&call, &mut connection).await?;
            Ok(match figures[..] {
                [
                    rows_read,
                    bytes_received,
                    rows_stored,
                    rows_rejected,
                    batches_stored,
                ] => Some(Counters {
                    rows_read,
                    bytes_received,
                    rows_stored,
                    rows_rejected,
                    batches_stored,
                }),
                _ => None,
            })
        })
        .await
    }

    async fn ping(&self) -> PortResult<()> {
        mapped("progress.ping", async {
            let mut connection = self.connection().await?;
            let answer = tokio::time::timeout(TIMEOUT, connection.ping()).await;
            let _pong: String = answer.map_err(|_| Failure::Silent)??;
            Ok(())
        })
        .await
    }

    async fn close(&self) {
        self.pool.close();
    }
}

fn add_batches(call: &mut ScriptInvocation<'_>, batches: &[StoredBatch]) {
    for batch in batches {
        call.arg(batch.seq).arg(batch.rows).arg(batch.rejected);
    }
}

fn presence(standing: i64) -> Presence {
    if standing == 0 {
        Presence::Absent
    } else {
        Presence::Present
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no connection to Redis")]
    Connect(#[from] deadpool_redis::PoolError),
    #[error("the Redis command failed")]
    Command(#[from] redis::RedisError),
    #[error("Redis did not answer within {} ms", TIMEOUT.as_millis())]
    Silent,
    #[error("Redis did not end the script within {} ms", TIMEOUT.as_millis())]
    Slow,
    #[error("Redis lost the counters while they were being restored")]
    Vanished,
}

impl Failure {
    /// A script that is slow, or counters that vanish, say nothing about the counters of other
    /// uploads. If the server is away, the next call gets no connection.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(_) | Self::Command(_) | Self::Silent => ErrorKind::Unavailable,
            Self::Slow | Self::Vanished => ErrorKind::Internal,
        }
    }
}

/// Maps the error of a call, and measures the call.
async fn mapped<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, Failure>>,
) -> PortResult<T> {
    let running = calls::begin(operation);
    let outcome = work.await;
    running.end(outcome.map_err(|failure| PortError::new(failure.kind(), operation, failure)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_script_does_not_mean_that_redis_is_away() {
        assert_eq!(Failure::Silent.kind(), ErrorKind::Unavailable);
        assert_eq!(Failure::Slow.kind(), ErrorKind::Internal);
        assert_eq!(Failure::Vanished.kind(), ErrorKind::Internal);
    }
}
