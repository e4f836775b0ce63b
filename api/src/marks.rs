//! What one layer tells another one about a request, with a mark of the request or of its answer.

use std::net::IpAddr;
use std::slice;
use std::sync::Arc;

use carga_common::limiter::{Bucket, LocalLimiter, Quota};

/// A mark of a request: the lookups in the store that keys from its address have left. `access`
/// takes one before it looks up a key that the store has not found before, and gives it back if the
/// key is valid. A client that leaves before its answer does not get it back. A flood of invented
/// keys therefore costs the store a bounded number of lookups.
#[derive(Debug, Clone)]
pub(crate) struct LookupAllowance {
    limiter: Arc<LocalLimiter>,
    /// The network of the client's address.
    network: IpAddr,
    quota: Quota,
}

impl LookupAllowance {
    pub(crate) fn new(limiter: Arc<LocalLimiter>, network: IpAddr, quota: Quota) -> Self {
        Self {
            limiter,
            network,
            quota,
        }
    }

    /// Takes one lookup. Returns whether there was one.
    pub(crate) fn take(&self) -> bool {
        let bucket = self.bucket();
        self.limiter.take_now(slice::from_ref(&bucket)).admitted
    }

    /// Gives one lookup back.
    pub(crate) fn give_back(&self) {
        self.limiter.give_back(&self.bucket());
    }

    /// Most requests take no lookup, so the name is made only for those that do.
    fn bucket(&self) -> Bucket {
        Bucket {
            name: format!("lookups:{}", self.network),
            quota: self.quota,
        }
    }
}

/// A mark of an answer to a request that counts for its address and not in its second: a preflight
/// request of a browser. It has no key, so all people behind one address would otherwise share the
/// few requests per second that each of their keys has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CountsForAddressOnly;

/// A mark of an answer to one request too many. Its line in the log has the level `debug`, because
/// a flood would otherwise fill the log. `limits` sums such answers up in a line of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusedByLimit;
