//! Which uploads the sweeper may end as interrupted.
//!
//! While the store is away, no API can renew a lease. When the store comes back, the first sweep
//! may precede the first heartbeat. Such a sweep finds expired leases of uploads whose API is
//! alive. The sweeper therefore ends an upload only if every sweep for some time has found its
//! lease expired.

use std::collections::HashMap;
use std::time::Duration;

use carga_common::upload::UploadKey;
use tokio::time::Instant;

/// The sweeps must find a lease expired for this long before its upload ends. An API needs less
/// time to connect again and to renew its leases.
const CONFIRMED_AFTER: Duration = Duration::from_secs(5);

/// The uploads whose lease had expired in the last sweep.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    /// The time of the first sweep that found each upload. All later sweeps have found it too.
    found_at: HashMap<UploadKey, Instant>,
}

impl Expiry {
    /// Records what a sweep has found. Returns the uploads that earlier sweeps have found for long
    /// enough.
    pub(crate) fn confirmed(&mut self, found: Vec<UploadKey>) -> Vec<UploadKey> {
        let now = Instant::now();
        let earlier = std::mem::take(&mut self.found_at);
        let found_at = |key| (key, earlier.get(&key).copied().unwrap_or(now));
        self.found_at = found.into_iter().map(found_at).collect();
        let confirmed = self.found_at.iter();
        let confirmed = confirmed.filter(|(_, at)| now - **at >= CONFIRMED_AFTER);
        confirmed.map(|(key, _)| *key).collect()
    }

    /// Records that a sweep could not read the store. The next sweep counts as the first one.
    pub(crate) fn sweep_failed(&mut self) {
        self.found_at.clear();
    }
}

#[cfg(test)]
mod tests {
    use carga_common::upload::UploadId;

    use super::*;

    fn key() -> UploadKey {
        UploadKey::first(UploadId::generate())
    }

    async fn pass() {
        tokio::time::advance(CONFIRMED_AFTER).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_ended_once_sweeps_have_found_it_for_long_enough() {
        let mut expiry = Expiry::default();
        let (early, late) = (key(), key());
        assert!(expiry.confirmed(vec![early]).is_empty());
        // Sweeps may follow each other faster than an API can connect again.
        assert!(expiry.confirmed(vec![early]).is_empty());
        pass().await;
        assert_eq!(expiry.confirmed(vec![early, late]), [early]);
        pass().await;
        assert_eq!(expiry.confirmed(vec![late]), [late]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_could_not_be_ended_is_tried_again_by_the_next_sweep() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.confirmed(vec![upload]).is_empty());
        pass().await;
        assert_eq!(expiry.confirmed(vec![upload]), [upload]);
        assert_eq!(expiry.confirmed(vec![upload]), [upload]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_sweep_in_between_resets_what_was_found() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.confirmed(vec![upload]).is_empty());
        expiry.sweep_failed();
        pass().await;
        assert!(expiry.confirmed(vec![upload]).is_empty());
        pass().await;
        assert_eq!(expiry.confirmed(vec![upload]), [upload]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_whose_lease_was_renewed_in_between_is_kept() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.confirmed(vec![upload]).is_empty());
        assert!(expiry.confirmed(vec![]).is_empty());
        pass().await;
        assert!(expiry.confirmed(vec![upload]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_one_sweep_lists_twice_is_found_once() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.confirmed(vec![upload, upload]).is_empty());
        pass().await;
        assert_eq!(expiry.confirmed(vec![upload, upload]), [upload]);
    }
}
