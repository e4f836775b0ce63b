//! The text of a key.
//!
//! A key is `carga_<id>_<secret><checksum>`, 68 characters in all: an id of 12 characters, a secret
//! of 43 and a checksum of 6, all of `0-9`, `A-Z` and `a-z`. Each character of the secret is chosen
//! at random, so the secret has 256 bits. The checksum is the CRC-32 of everything before it, so a
//! mistyped key is refused without a look into the store, and scanners can find keys in texts.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::KeyDigest;

pub(super) const PREFIX: &str = "carga_";
pub(super) const ID_CHARS: usize = 12;
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
const KEY_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public part of a key. It names the key in lists and in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the id of a key, which may be given as the whole key. The error does not repeat the
    /// text, because it may be a key.
    pub fn named_by(text: &str) -> Result<Self, NotAKeyId> {
        match text.parse::<ApiKey>() {
            Ok(key) => Ok(key.id),
            Err(NotAKey) => text.parse(),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The text is not the id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the id of a key has 12 letters and digits; it stands between `carga_` and the next `_` of the key"
)]
pub struct NotAKeyId;

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() == ID_CHARS && is_base62(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotAKeyId),
        }
    }
}

/// A whole key. Only [`expose`](Self::expose) shows its secret.
#[derive(Clone)]
pub struct ApiKey {
    id: KeyId,
    text: String,
}

/// The operating system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the operating system has no random numbers: {0}")]
pub struct Unobtainable(pub(super) String);

impl ApiKey {
    /// Makes a key from random numbers of the operating system.
    pub fn generate() -> Result<Self, Unobtainable> {
        let mut text = PREFIX.to_owned();
        push_random(&mut text, ID_CHARS)?;
        let id = KeyId(text[PREFIX.len()..].to_owned());
        text.push('_');
        push_random(&mut text, SECRET_CHARS)?;
        text.push_str(&checksum(&text));
        Ok(Self { id, text })
    }

    /// The public part.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// What the store keeps of the key.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.text)
    }

    /// The key with its secret, for the person who asked for it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_***", self.id)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({self})")
    }
}

/// The text is not a key, mostly because a part of it is missing or mistyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a key of Carga, or a character of the key is wrong or missing")]
pub struct NotAKey;

impl FromStr for ApiKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The length is in bytes. A text that is not ASCII fails the checks below.
        if text.len() != KEY_CHARS {
            return Err(NotAKey);
        }
        let parts = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.ok_or(NotAKey)?;
        let id: KeyId = id.parse().map_err(|NotAKeyId| NotAKey)?;
        let (signed, found) = text
            .split_at_checked(KEY_CHARS - CHECKSUM_CHARS)
            .ok_or(NotAKey)?;
        match is_base62(secret) && checksum(signed) == found {
            true => Ok(Self {
                id,
                text: text.to_owned(),
            }),
            false => Err(NotAKey),
        }
    }
}

pub(super) fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Appends characters of the alphabet, each with the same probability. Random bytes whose lower six
/// bits are not the number of a character are skipped.
pub(super) fn push_random(text: &mut String, count: usize) -> Result<(), Unobtainable> {
    let whole = text.len() + count;
    while text.len() < whole {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(|error| Unobtainable(error.to_string()))?;
        let digits = bytes
            .iter()
            .filter_map(|byte| DIGITS.get(usize::from(byte & 63)));
        let missing = whole - text.len();
        text.extend(digits.take(missing).map(|digit| char::from(*digit)));
    }
    Ok(())
}

/// The CRC-32 of the text as six digits of base 62.
fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes()) as usize;
    let mut digits = ['0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = char::from(DIGITS[rest % DIGITS.len()]);
        rest /= DIGITS.len();
    }
    digits.iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A key whose characters come from `numbers`.
    fn key_of(numbers: &[u8]) -> String {
        let digits: String = numbers
            .iter()
            .map(|number| char::from(DIGITS[usize::from(*number) % DIGITS.len()]))
            .collect();
        let (id, secret) = digits.split_at(ID_CHARS);
        let text = format!("{PREFIX}{id}_{secret}");
        let checksum = checksum(&text);
        text + &checksum
    }

    fn numbers() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), ID_CHARS + SECRET_CHARS)
    }

    #[test]
    fn generated_keys_parse_and_differ() {
        let mut ids = HashSet::new();
        for _ in 0..500 {
            let key = ApiKey::generate().unwrap();
            let parsed: ApiKey = key.expose().parse().unwrap();
            assert_eq!(parsed.expose(), key.expose());
            assert_eq!(parsed.id(), key.id());
            assert!(parsed.digest().matches(&key.digest()));
            assert!(ids.insert(key.id().clone()), "{key}");
        }
    }

    #[test]
    fn a_known_key_has_its_known_checksum() {
        let key = key_of(&[0; ID_CHARS + SECRET_CHARS]);
        assert_eq!(key.len(), 68);
        assert!(key.starts_with("carga_000000000000_0000"), "{key}");
        // CRC-32 of the first 62 characters, as zlib computes it.
        assert!(key.ends_with("10upGp"), "{key}");
    }

    #[test]
    fn a_key_is_shown_without_its_secret() {
        let key = ApiKey::generate().unwrap();
        let (_, secret) = key.expose().rsplit_once('_').unwrap();
        for shown in [key.to_string(), format!("{key:?}"), format!("{key:#?}")] {
            assert!(!shown.contains(&secret[..4]), "{shown}");
            assert!(shown.contains(key.id().as_str()), "{shown}");
        }
    }

    #[test]
    fn other_texts_are_neither_keys_nor_ids() {
        let key = key_of(&[7; ID_CHARS + SECRET_CHARS]);
        let (upper, wide) = (key.to_uppercase(), "é".repeat(34));
        for text in ["", "carga_", &key[1..], &upper, &wide, &format!(" {key}")] {
            assert_eq!(text.parse::<ApiKey>().unwrap_err(), NotAKey, "{text}");
        }
        for text in ["", "00000000000", "0000000000000", "00000000000_", "éééééé"] {
            assert_eq!(text.parse::<KeyId>(), Err(NotAKeyId), "{text}");
        }
    }

    #[test]
    fn a_key_is_named_by_its_id_or_by_the_whole_key_and_no_fault_repeats_it() {
        let key = ApiKey::generate().unwrap();
        for name in [key.id().as_str(), key.expose()] {
            assert_eq!(KeyId::named_by(name).as_ref(), Ok(key.id()));
        }
        let mistyped = format!("{}x", key.expose());
        let fault = KeyId::named_by(&mistyped).unwrap_err().to_string();
        assert!(!fault.contains(key.id().as_str()), "{fault}");
    }

    proptest! {
        #[test]
        fn a_key_with_one_changed_character_is_refused(
            numbers in numbers(),
            position in 0..KEY_CHARS,
            character in any::<char>(),
        ) {
            let key = key_of(&numbers);
            prop_assert!(key.parse::<ApiKey>().is_ok());
            let mut digits = DIGITS.iter().map(|digit| char::from(*digit));
            let others = digits.by_ref().chain(['_', '-', ' ', character]);
            for other in others {
                let mut characters: Vec<char> = key.chars().collect();
                if characters[position] == other {
                    continue;
                }
                characters[position] = other;
                let changed: String = characters.into_iter().collect();
                prop_assert!(changed.parse::<ApiKey>().is_err(), "{changed}");
            }
        }

        #[test]
        fn a_key_with_two_exchanged_neighbours_is_refused(
            numbers in numbers(),
            position in 0..KEY_CHARS - 1,
        ) {
            let key = key_of(&numbers);
            let mut characters: Vec<char> = key.chars().collect();
            characters.swap(position, position + 1);
            let changed: String = characters.into_iter().collect();
            prop_assert_eq!(changed.parse::<ApiKey>().is_ok(), changed == key);
        }

        #[test]
        fn keys_are_equal_only_if_their_ids_and_secrets_are(
            one in numbers(),
            other in numbers(),
        ) {
            let digits = |numbers: &[u8]| -> Vec<u8> {
                numbers.iter().map(|number| number % 62).collect()
            };
            let (first, second) = (key_of(&one), key_of(&other));
            prop_assert_eq!(first == second, digits(&one) == digits(&other));
            let parsed: ApiKey = first.parse().unwrap();
            prop_assert_eq!(parsed.id().as_str(), &first[6..18]);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}", tail in any::<String>()) {
            prop_assert!(text.parse::<ApiKey>().is_err());
            let text = format!("{PREFIX}{tail}");
            prop_assert!(text.parse::<ApiKey>().is_err());
        }
    }
}
