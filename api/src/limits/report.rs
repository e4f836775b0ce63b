//! Tells in the log that limits refuse requests, with one line for all that they refuse in ten
//! seconds.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::sync::lock;

/// How long refused requests are gathered for one line.
const PAUSE: Duration = Duration::from_secs(10);

/// The refused requests that no line has told yet.
#[derive(Debug, Clone, Default)]
pub(super) struct RefusalReport(Arc<Mutex<Option<Refused>>>);

/// Refused requests, at least one.
#[derive(Debug)]
struct Refused {
    requests: u64,
    /// The limit and the address of the last one.
    last: (&'static str, IpAddr),
}

impl RefusalReport {
    /// Adds a refused request. The line about it is written after at most [`PAUSE`].
    pub(super) fn add(&self, limit: &'static str, address: IpAddr) {
        if self.count(limit, address) {
            let report = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                report.write();
            });
        }
    }

    /// Counts a refused request. Returns whether it is the first one that no line has told.
    fn count(&self, limit: &'static str, address: IpAddr) -> bool {
        let mut refused = lock(&self.0);
        let requests = refused.as_ref().map_or(0, |refused| refused.requests);
        *refused = Some(Refused {
            requests: requests + 1,
            last: (limit, address),
        });
        requests == 0
    }

    fn write(&self) {
        let refused = lock(&self.0).take();
        if let Some(Refused { requests, last }) = refused {
            tracing::info!(
                requests,
                last.limit = last.0,
                last.address = %last.1,
                "limits have refused requests in the last {} s; the level `debug` shows each of them",
                PAUSE.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_refused_requests_of_ten_seconds_are_told_once_and_together() {
        let report = RefusalReport::default();
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let untold = || {
            let refused = lock(&report.0);
            refused
                .as_ref()
                .map(|refused| (refused.requests, refused.last))
        };
        for _ in 0..2 {
            for last in 1..=3 {
                report.add("burst", address(last));
            }
            assert_eq!(untold(), Some((3, ("burst", address(3)))));
            tokio::time::sleep(PAUSE + Duration::from_millis(1)).await;
            assert_eq!(untold(), None);
        }
    }
}
