//! Buckets in Redis, which several processes share. A request is one script, and so one round trip
//! that no other request interrupts. The time is that of Redis, so the clocks of the processes do
//! not matter.
//!
//! The key of a bucket has the time at which the bucket will be full. It expires at that time,
//! because a bucket without a key is full.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, AsyncConnectionConfig, Client, Script};

use super::{Bucket, Decision, RateLimiter};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::settings::SecretUrl;
use crate::sync::lock;

const OPERATION: &str = "limiter.take";

/// The time limit of a new connection. It is longer than that of a request, because a client with
/// TLS also loads the certificates of the system.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Takes from all buckets or from none.
///
/// - `KEYS`: the buckets.
/// - `ARGV`: for each bucket the interval of its quota, and its level when it is empty, in
///   microseconds.
/// - Returns whether the request is admitted, and the levels of the buckets after it.
///
/// The clock of Redis may go back, such as after a failover to another server. A level is therefore
/// never taken for higher than that of an empty bucket.
const TAKE: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local levels, admitted = {}, 1
for i, key in ipairs(KEYS) do
  local interval, empty = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local full_at = tonumber(redis.call('GET', key) or now)
  levels[i] = math.min(math.max(full_at - now, 0), empty)
  if levels[i] + interval > empty then admitted = 0 end
end
if admitted == 1 then
  for i, key in ipairs(KEYS) do
    levels[i] = levels[i] + tonumber(ARGV[2 * i - 1])
    redis.call('SET', key, string.format('%.0f', now + levels[i]),
               'PX', string.format('%.0f', math.ceil(levels[i] / 1000)))
  end
end
return { admitted, levels }
";

/// Settings of the limiter in Redis.
#[derive(Debug, Clone)]
pub struct RedisLimiterSettings {
    /// `redis://…`, or `rediss://…` for TLS
    pub url: SecretUrl,
    /// The prefix of every key.
    pub prefix: String,
    /// How long a request waits for Redis.
    pub timeout: Duration,
}

/// A [`RateLimiter`] that several processes share.
pub struct RedisLimiter {
    connections: Arc<Connections>,
    prefix: String,
    timeout: Duration,
    take: Script,
}

impl fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimiter")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl RedisLimiter {
    /// Prepares the connection, which opens at first use.
    pub fn new(settings: RedisLimiterSettings) -> PortResult<Self> {
        // redis takes rustls' default provider, and rustls panics without one. An error means that
        // another crate has installed a provider already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::open(settings.url.expose())
            .map_err(|error| PortError::new(ErrorKind::Invalid, "limiter.connect", error))?;
        Ok(Self {
            connections: Arc::new(Connections {
                client,
                current: Mutex::default(),
                connecting: Arc::default(),
            }),
            prefix: settings.prefix,
            timeout: settings.timeout,
            take: Script::new(TAKE),
        })
    }

    async fn run(&self, buckets: &[Bucket]) -> Result<(bool, Vec<u64>), Failure> {
        let mut connection = self.connections.get().await?;
        let mut call = self.take.prepare_invoke();
        for Bucket { name, quota } in buckets {
            // The braces put all buckets into one slot of a Redis cluster.
            call.key(format!("{}:{{limits}}:{name}", self.prefix));
            call.arg(quota.interval_us()).arg(quota.empty_us());
        }
        Ok(call.invoke_async(&mut connection).await?)
    }
}

#[async_trait]
impl RateLimiter for RedisLimiter {
    async fn take(&self, buckets: &[Bucket]) -> PortResult<Decision> {
        let answer = tokio::time::timeout(self.timeout, self.run(buckets)).await;
        let answer = answer.unwrap_or(Err(Failure::Silent(self.timeout)));
        let (admitted, levels_us) = answer.map_err(|failure| {
            self.connections.forget();
            PortError::unavailable(OPERATION, failure)
        })?;
        Ok(Decision::new(admitted, buckets, &levels_us))
    }
}

/// One connection for all requests. redis sends requests on it without waiting for the answers to
/// earlier ones. A pool would send a PING before each request.
struct Connections {
    client: Client,
    current: Mutex<Option<MultiplexedConnection>>,
    /// Held by the task that connects.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

impl Connections {
    async fn get(self: &Arc<Self>) -> Result<MultiplexedConnection, Failure> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let Ok(turn) = Arc::clone(&self.connecting).try_lock_owned() else {
            drop(self.connecting.lock().await);
            return self.current().ok_or(Failure::Away);
        };
        // On its own task, because a request may give up before the connection is open.
        let this = Arc::clone(self);
        let connecting = tokio::spawn(async move {
            let _turn = turn;
            this.connect().await
        });
        connecting.await.unwrap_or(Err(Failure::Away))
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await?;
        *lock(&self.current) = Some(connection.clone());
        Ok(connection)
    }

    fn current(&self) -> Option<MultiplexedConnection> {
        lock(&self.current).clone()
    }

    /// The next request opens a new connection.
    fn forget(&self) {
        lock(&self.current).take();
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no connection to Redis")]
    Away,
    #[error("the Redis command failed")]
    Command(#[from] redis::RedisError),
    #[error("Redis did not answer within {} ms", .0.as_millis())]
    Silent(Duration),
}
