//! Who may do what: API keys with a tenant and scopes, and tokens that have fewer rights.
//!
//! Everything here is pure: no database and no HTTP. The store keeps a [`KeyRecord`] with the
//! [`KeyDigest`] of its key, and never the key. The API compares the digest of a key in a request
//! with the one in the store. A [`Token`] is in no table: the API signs it with the
//! [`TokenSecret`], and checks the signature.

mod digest;
mod key;
mod masking;
mod new_key;
mod record;
mod scope;
mod token;
mod token_secret;

pub use digest::KeyDigest;
pub use key::{ApiKey, KeyId, NotAKey, NotAKeyId, Unobtainable};
pub use masking::{JWT_START, without_secrets};
pub use new_key::{KeyFault, NewKey, check_dataset_limit};
pub use record::{KeyRecord, KeyState};
pub use scope::{Scope, Scopes, ScopesFault};
pub use token::{NotATokenId, Token, TokenId, TokenLimits, TokenMaker};
pub use token_secret::{AdminMark, SignedToken, TokenFault, TokenSecret, is_token};
