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
use crate::metrics::calls::measured;
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
/// limited to that of an empty bucket.
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
    /// Prepares the connection and opens it, so that no request waits for that. If Redis is away,
    /// the first request tries again.
    pub async fn connect(settings: RedisLimiterSettings) -> PortResult<Self> {
        let limiter = Self::new(settings)?;
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, limiter.connections.get()).await;
        let opened = opened.unwrap_or(Err(Failure::Silent(CONNECT_TIMEOUT)));
        if let Err(failure) = opened {
            let error = PortError::unavailable("limiter.connect", failure);
            tracing::warn!(
                error = error.chain(),
                "cannot connect to Redis for the limits of requests; the first request tries again"
            );
        }
        Ok(limiter)
    }

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

    /// Sets `used` to the number of the connection as soon as there is one.
    async fn run(
        &self,
        buckets: &[Bucket],
        used: &mut Option<u64>,
    ) -> Result<(bool, Vec<u64>), Failure> {
        let (number, mut connection) = self.connections.get().await?;
        *used = Some(number);
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
        let mut used = None;
        let taking = async {
            let answer = tokio::time::timeout(self.timeout, self.run(buckets, &mut used)).await;
            let answer = answer.unwrap_or(Err(Failure::Silent(self.timeout)));
            answer.map_err(|failure| PortError::unavailable(OPERATION, failure))
        };
        let taken = measured(OPERATION, taking).await;
        if let (Err(_), Some(number)) = (&taken, used) {
            lock(&self.connections.current).forget(number);
        }
        let (admitted, levels_us) = taken?;
        Ok(Decision::new(admitted, buckets, &levels_us))
    }
}

/// One connection for all requests. redis sends requests on it without waiting for the answers to
/// earlier ones. A pool would send a PING before each request.
struct Connections {
    client: Client,
    current: Mutex<Current<MultiplexedConnection>>,
    /// Held by the task that connects.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

impl Connections {
    /// The connection and its number. Opens one if there is none.
    async fn get(self: &Arc<Self>) -> Result<(u64, MultiplexedConnection), Failure> {
        let current = || lock(&self.current).get();
        if let Some(current) = current() {
            return Ok(current);
        }
        let Ok(turn) = Arc::clone(&self.connecting).try_lock_owned() else {
            drop(self.connecting.lock().await);
            return current().ok_or(Failure::Away);
        };
        // On its own task, because a request may give up before the connection is open.
        let this = Arc::clone(self);
        let connecting = tokio::spawn(async move {
            let _turn = turn;
            this.connect().await
        });
        connecting.await.unwrap_or(Err(Failure::Away))
    }

    async fn connect(&self) -> Result<(u64, MultiplexedConnection), Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await?;
        let number = lock(&self.current).replace(connection.clone());
        Ok((number, connection))
    }
}

/// The connection that is in use, and the number of connections so far.
#[derive(Debug)]
struct Current<C> {
    connection: Option<C>,
    number: u64,
}

impl<C> Default for Current<C> {
    fn default() -> Self {
        Self {
            connection: None,
            number: 0,
        }
    }
}

impl<C: Clone> Current<C> {
    fn get(&self) -> Option<(u64, C)> {
        Some((self.number, self.connection.clone()?))
    }

    /// Uses a new connection. Returns its number.
    fn replace(&mut self, connection: C) -> u64 {
        self.connection = Some(connection);
        self.number += 1;
        self.number
    }

    /// Forgets the connection with this number, so that the next request opens a new one. Requests
    /// that were sent on an earlier connection may fail later.
    fn forget(&mut self, number: u64) {
        if self.number == number {
            self.connection = None;
        }
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn settings(listener: &TcpListener) -> RedisLimiterSettings {
        let url = format!("redis://{}", listener.local_addr().unwrap());
        RedisLimiterSettings {
            url: SecretUrl::new(url),
            prefix: "test".to_owned(),
            timeout: Duration::from_millis(50),
        }
    }

    #[tokio::test]
    async fn a_limiter_connects_before_its_first_request() {
        let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accepted = async { drop(redis.accept().await.unwrap()) };
        let connected = RedisLimiter::connect(settings(&redis));
        let both = async { tokio::join!(connected, accepted) };
        let both = tokio::time::timeout(Duration::from_secs(30), both).await;
        // The start succeeds, although this Redis closes the connection.
        assert!(both.unwrap().0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_redis_delays_the_start_by_a_limited_time() {
        let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let started = tokio::time::Instant::now();
        assert!(RedisLimiter::connect(settings(&redis)).await.is_ok());
        assert!(started.elapsed() <= CONNECT_TIMEOUT * 2);
    }

    #[test]
    fn a_failure_forgets_only_the_connection_that_failed() {
        let mut current = Current::default();
        let first = current.replace("first");
        current.forget(first);
        assert_eq!(current.get(), None);
        let second = current.replace("second");
        // A request on the first connection fails later.
        current.forget(first);
        assert_eq!(current.get(), Some((second, "second")));
        current.forget(second);
        assert_eq!(current.get(), None);
    }
}
