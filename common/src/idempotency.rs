//! Requests that a client may repeat under one key, and that take effect once
//! (draft-ietf-httpapi-idempotency-key-header).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sha2::Digest;

use crate::sha256::Sha256;
use crate::tenant::Tenant;

/// The most bytes of a key.
pub const MAX_REQUEST_KEY_BYTES: usize = 255;

/// How long a key stays with its first request. After that, the key is free.
pub const REQUEST_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The sender of a request with `CARGA_ADMIN_KEY` or without authentication.
const NO_SENDER: &str = "-";

/// The text that a client chooses for a request: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey(String);

impl RequestKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not the key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {MAX_REQUEST_KEY_BYTES} visible ASCII characters")]
pub struct NotARequestKey;

impl FromStr for RequestKey {
    type Err = NotARequestKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let has_length = (1..=MAX_REQUEST_KEY_BYTES).contains(&text.len());
        match is_visible && has_length {
            true => Ok(Self(text.to_owned())),
            false => Err(NotARequestKey),
        }
    }
}

/// A call that takes the key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdempotentRoute {
    /// Sending a file.
    PostUploads,
    /// Making an API key.
    PostKeys,
}

impl IdempotentRoute {
    /// The method and the path, as the database has them.
    pub fn name(self) -> &'static str {
        match self {
            Self::PostUploads => "POST /uploads",
            Self::PostKeys => "POST /keys",
        }
    }
}

impl fmt::Display for IdempotentRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names a request. The same text of another tenant, of another sender or for another route is
/// another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The tenant of the sender.
    pub tenant: Tenant,
    /// The sender, as uploads record it: the API key, the token or the subject of the JWT. `None`
    /// for `CARGA_ADMIN_KEY`, and without authentication.
    pub sender: Option<String>,
    /// The call.
    pub route: IdempotentRoute,
    /// The text that the client has chosen.
    pub text: RequestKey,
}

impl IdempotencyKey {
    /// The sender, as the database has it: `-` for `None`. No sender has this name.
    pub fn sender(&self) -> &str {
        self.sender.as_deref().unwrap_or(NO_SENDER)
    }
}

/// A request that takes effect once.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    /// The name of the request.
    pub key: IdempotencyKey,
    /// The [`fingerprint`] of what the client wants. That of a file has its options and not its
    /// content, which is known only when the whole file has arrived.
    pub fingerprint: Sha256,
}

/// The digest of a list of names with their values. Each text is preceded by its length, so that
/// two different lists never give the same bytes.
pub fn fingerprint<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sha256 {
    let mut hash = sha2::Sha256::new();
    for text in fields.into_iter().flat_map(|(name, value)| [name, value]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_key_has_1_to_255_visible_ascii_characters() {
        let longest = "~".repeat(255);
        for text in [
            "a",
            "8e03978e-40d5-43e8-bc93-6894a57f9324",
            "!\"#",
            &longest,
        ] {
            assert_eq!(text.parse::<RequestKey>().unwrap().as_str(), text);
        }
        let too_long = "~".repeat(256);
        for text in ["", " ", "a b", "a\tb", "é", "a\u{7f}", &too_long] {
            assert_eq!(text.parse::<RequestKey>(), Err(NotARequestKey), "{text:?}");
        }
    }

    #[test]
    fn lists_that_read_alike_have_different_fingerprints() {
        let lists: [&[(&str, &str)]; 6] = [
            &[],
            &[("", "")],
            &[("a", "bc")],
            &[("ab", "c")],
            &[("a", "b"), ("c", "")],
            &[("a", ""), ("b", "c")],
        ];
        for (index, list) in lists.iter().enumerate() {
            for other in &lists[..index] {
                let digests = [*list, *other].map(|list| fingerprint(list.iter().copied()));
                assert_ne!(digests[0], digests[1], "{list:?} {other:?}");
            }
        }
    }
}
