//! What one layer tells another one about a request, with a mark of the request or of its answer.

/// A mark of a request whose address has sent as much as it may. `access` does not look its key up
/// in the store, unless the store has found the key before. A flood of wrong keys therefore ends
/// at the limit of its address, and costs the store nothing beyond it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverAddressLimit;

/// An answer to a request that counts for its address and not in its second: a preflight request
/// of a browser. It has no key, so all people behind one address would otherwise share the few
/// requests per second that each of their keys has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CountsForAddressOnly;
