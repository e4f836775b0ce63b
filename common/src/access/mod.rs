//! Who may do what: API keys with a tenant and scopes.
//!
//! Everything here is pure: no database and no HTTP. The store keeps a [`KeyRecord`] with the
//! [`KeyDigest`] of its key, and never the key. The API compares the digest of a key in a request
//! with the one in the store.

mod digest;
mod key;
mod masking;
mod new_key;
mod record;
mod scope;

pub use digest::KeyDigest;
pub use key::{ApiKey, KeyId, NotAKey, NotAKeyId, Unobtainable};
pub use masking::without_secrets;
pub use new_key::{KeyFault, NewKey};
pub use record::{KeyRecord, KeyState};
pub use scope::{Scope, Scopes, ScopesFault};
