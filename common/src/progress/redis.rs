//! Live counters in Redis: one hash and one bitmap per upload. Each change is one atomic script.
//!
//! The hash has the server's `run_id`, which changes with every restart. A hash with another
//! `run_id` counts as absent and is rebuilt, because Redis may have restarted from an old snapshot.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::{self, AsyncCommands, Script, ScriptInvocation};
use deadpool_redis::{Connection, Manager, Pool, Runtime};

use super::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::sync::lock;
use crate::upload::UploadKey;

/// The time limit of a call. It is short, because a poll can do without live counters.
const TIMEOUT: Duration = Duration::from_millis(400);

/// Settings of the counters in Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://…`
    pub url: String,
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
/// - `standing`: 0 for absent counters, 1 for counters of this epoch, 2 for those of a newer epoch.
///
/// A hash whose bitmap was evicted counts as absent, because it would count batches twice.
const PRELUDE: &str = "
local known = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'batches')
local standing = 1
if not known[1] or known[1] ~= ARGV[1] or tonumber(known[2]) < tonumber(ARGV[2]) then standing = 0
elseif tonumber(known[2]) > tonumber(ARGV[2]) then standing = 2
elseif tonumber(known[3]) > 0 and redis.call('EXISTS', KEYS[2]) == 0 then standing = 0 end
local function raise(field, value)
  local now = tonumber(redis.call('HGET', KEYS[1], field) or 0)
  if tonumber(value) > now then redis.call('HSET', KEYS[1], field, value) end
end
local function count(first)
  local rows, batches = 0, 0
  for i = first, #ARGV, 2 do
    if redis.call('SETBIT', KEYS[2], ARGV[i], 1) == 0 then
      rows = rows + tonumber(ARGV[i + 1])
      batches = batches + 1
    end
  end
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
if standing == 1 then raise('read', ARGV[4]); raise('bytes', ARGV[5]); keep() end
return standing
";

const STORED: &str = "
if standing == 1 then count(4); keep() end
return standing
";

const RESTORE: &str = "
if standing == 2 then return 2 end
if standing == 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'epoch', ARGV[2], 'read', 0, 'bytes', 0, 'rows', 0, 'batches', 0)
end
raise('read', ARGV[4]); raise('bytes', ARGV[5])
count(6)
keep()
return 1
";

const READ: &str = "
if standing ~= 1 then return {} end
local f = redis.call('HMGET', KEYS[1], 'read', 'bytes', 'rows', 'batches')
return { tonumber(f[1]), tonumber(f[2]), tonumber(f[3]), tonumber(f[4]) }
";

impl RedisProgress {
    /// Prepares the pool. Connections open at first use, so that a program starts without Redis.
    pub fn new(settings: RedisSettings) -> PortResult<Self> {
        const OPERATION: &str = "progress.connect";
        let manager = Manager::new(settings.url.as_str())
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
        let pool = Pool::builder(manager)
            .max_size(4)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(TIMEOUT))
            .create_timeout(Some(TIMEOUT))
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

    async fn connection(&self) -> Result<Connection, Failure> {
        Ok(self.pool.get().await?)
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
        in_time("progress.received", async {
            let mut connection = self.connection().await?;
            let mut call = self.call(&self.received, upload);
            call.arg(rows_read).arg(bytes_received);
            Ok(presence(call.invoke_async(&mut connection).await?))
        })
        .await
    }

    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence> {
        in_time("progress.stored", async {
            let mut connection = self.connection().await?;
            let mut call = self.call(&self.stored, upload);
            add_batches(&mut call, batches);
            Ok(presence(call.invoke_async(&mut connection).await?))
        })
        .await
    }

    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()> {
        in_time("progress.restore", async {
            let mut connection = self.connection().await?;
            let mut call = self.call(&self.restore, upload);
            call.arg(snapshot.rows_read).arg(snapshot.bytes_received);
            add_batches(&mut call, &snapshot.stored);
            let _standing: i64 = call.invoke_async(&mut connection).await?;
            Ok(())
        })
        .await
    }

    async fn read(&self, upload: UploadKey) -> PortResult<Option<Counters>> {
        in_time("progress.read", async {
            let mut connection = self.connection().await?;
            let call = self.call(&self.read, upload);
            let figures: Vec<u64> = call.invoke_async(&mut connection).await?;
            Ok(match figures[..] {
                [rows_read, bytes_received, rows_stored, batches_stored] => Some(Counters {
                    rows_read,
                    bytes_received,
                    rows_stored,
                    batches_stored,
                }),
                _ => None,
            })
        })
        .await
    }

    async fn ping(&self) -> PortResult<()> {
        in_time("progress.ping", async {
            let mut connection = self.connection().await?;
            let _pong: String = connection.ping().await?;
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
        call.arg(batch.seq).arg(batch.rows);
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
    Timeout,
}

/// Limits the time of a call. Every error becomes *unavailable*, because callers can do without
/// live counters.
async fn in_time<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, Failure>>,
) -> PortResult<T> {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or(Err(Failure::Timeout))
        .map_err(|failure| PortError::unavailable(operation, failure))
}
