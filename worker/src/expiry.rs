//! Which uploads the sweeper may end as interrupted.
//!
//! While the store is away, no API can renew a lease. When the store comes back, the first sweep
//! may precede the first heartbeat. Such a sweep finds expired leases of uploads whose API is
//! alive. The sweeper therefore ends an upload only if the previous sweep also found its lease
//! expired.

use std::collections::HashSet;

use carga_common::upload::UploadKey;

/// The uploads whose lease had expired in the last sweep.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    last_found: HashSet<UploadKey>,
}

impl Expiry {
    /// Records what a sweep has found. Returns the uploads that the previous sweep also found.
    pub(crate) fn found_twice(&mut self, found: Vec<UploadKey>) -> Vec<UploadKey> {
        let found: HashSet<UploadKey> = found.into_iter().collect();
        let twice = found.intersection(&self.last_found).copied().collect();
        self.last_found = found;
        twice
    }

    /// Records that a sweep could not read the store. The next sweep counts as the first one.
    pub(crate) fn sweep_failed(&mut self) {
        self.last_found.clear();
    }
}

#[cfg(test)]
mod tests {
    use carga_common::upload::UploadId;

    use super::*;

    fn key() -> UploadKey {
        UploadKey::first(UploadId::generate())
    }

    #[test]
    fn an_upload_is_ended_by_the_second_sweep_that_finds_it() {
        let mut expiry = Expiry::default();
        let (early, late) = (key(), key());
        assert!(expiry.found_twice(vec![early]).is_empty());
        assert_eq!(expiry.found_twice(vec![early, late]), [early]);
        assert_eq!(expiry.found_twice(vec![late]), [late]);
    }

    #[test]
    fn an_upload_that_could_not_be_ended_is_tried_again_by_the_next_sweep() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.found_twice(vec![upload]).is_empty());
        assert_eq!(expiry.found_twice(vec![upload]), [upload]);
        assert_eq!(expiry.found_twice(vec![upload]), [upload]);
    }

    #[test]
    fn a_failed_sweep_in_between_resets_what_was_found() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.found_twice(vec![upload]).is_empty());
        expiry.sweep_failed();
        assert!(expiry.found_twice(vec![upload]).is_empty());
        assert_eq!(expiry.found_twice(vec![upload]), [upload]);
    }

    #[test]
    fn an_upload_whose_lease_was_renewed_in_between_is_kept() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.found_twice(vec![upload]).is_empty());
        assert!(expiry.found_twice(vec![]).is_empty());
        assert!(expiry.found_twice(vec![upload]).is_empty());
    }

    #[test]
    fn an_upload_that_one_sweep_lists_twice_is_found_once() {
        let mut expiry = Expiry::default();
        let upload = key();
        assert!(expiry.found_twice(vec![upload, upload]).is_empty());
        assert_eq!(expiry.found_twice(vec![upload, upload]), [upload]);
    }
}
