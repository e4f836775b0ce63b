//! What a token says: who made it, what it allows, and when it ends.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::key::{is_base62, push_random};
use super::{AdminMark, KeyId, Scopes, Unobtainable};
use crate::dataset::DatasetName;
use crate::tenant::Tenant;

/// 22 characters of `0-9`, `A-Z` and `a-z` have 131 bits.
const ID_CHARS: usize = 22;

/// Stands for the id of the key in the sender of uploads that were sent with a token of
/// `CARGA_ADMIN_KEY`. No key has an id of this length.
const ADMIN_SENDER: &str = "admin";

/// The random id of a token. It names the token in the log and in the records of its uploads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenId(String);

impl TokenId {
    /// A new id, from random numbers of the operating system.
    pub fn generate() -> Result<Self, Unobtainable> {
        let mut text = String::new();
        push_random(&mut text, ID_CHARS)?;
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The text is not the id of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a token has 22 letters and digits")]
pub struct NotATokenId;

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() == ID_CHARS && is_base62(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotATokenId),
        }
    }
}

/// The key that made a token. The token ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenMaker {
    /// A key of the store.
    Key(KeyId),
    /// `CARGA_ADMIN_KEY`, with the mark of its value.
    Admin(AdminMark),
}

/// What a token limits besides its scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLimits {
    /// The token.
    pub id: TokenId,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// How many uploads may be sent with the token; `None` for any number.
    pub max_uploads: Option<u64>,
    /// The size of the largest file in bytes; `None` for no limit of the token.
    pub max_bytes: Option<u64>,
}

/// A token. Its times have whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The key that made it.
    pub maker: TokenMaker,
    /// The tenant of that key.
    pub tenant: Tenant,
    /// What the holder may do.
    pub scopes: Scopes,
    /// The only dataset to which the holder may send files; `None` for no such limit.
    pub dataset: Option<DatasetName>,
    /// When it was made.
    pub issued_at: Timestamp,
    /// The id, the end, and the limits of uploads.
    pub limits: TokenLimits,
}

impl Token {
    /// The sender that uploads with this token record: the id of the key that made the token, a
    /// dot, and the id of the token.
    pub fn sender(&self) -> String {
        let maker = match &self.maker {
            TokenMaker::Key(id) => id.as_str(),
            TokenMaker::Admin(_) => ADMIN_SENDER,
        };
        format!("{maker}.{}", self.limits.id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn generated_ids_parse_and_differ() {
        let mut ids = HashSet::new();
        for _ in 0..500 {
            let id = TokenId::generate().unwrap();
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
            assert!(ids.insert(id));
        }
        for text in ["", "x", "000000000000000000000.", &"0".repeat(23)] {
            assert_eq!(text.parse::<TokenId>(), Err(NotATokenId), "{text}");
        }
    }
}
