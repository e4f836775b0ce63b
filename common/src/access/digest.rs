//! Digests of keys, and their comparison.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 digest of a whole key. A key has 256 random bits, so nobody can find it from its
/// digest, and a slow hash as for passwords is not needed.
///
/// There is no `==`: digests are only compared by [`matches`](Self::matches).
#[derive(Clone, Copy)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of this text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// The bytes of the digest, for the store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both digests are equal. The time does not depend on how many bytes are equal, so it
    /// tells an attacker nothing about the digest.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl From<[u8; 32]> for KeyDigest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Keeps digests out of logs.
impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_only_if_all_bytes_are_equal() {
        let digest = KeyDigest::of("a");
        assert!(digest.matches(&KeyDigest::of("a")));
        for byte in 0..32 {
            let mut bytes = *digest.as_bytes();
            bytes[byte] ^= 1;
            assert!(!digest.matches(&bytes.into()), "byte {byte}");
        }
    }

    #[test]
    fn a_digest_is_that_of_sha_256_and_is_not_shown() {
        let digest = KeyDigest::of("");
        assert_eq!(digest.as_bytes()[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        assert_eq!(format!("{digest:?}"), "KeyDigest(***)");
    }
}
