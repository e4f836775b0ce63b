//! Tenants. Uploads and datasets belong to a tenant, and other tenants do not see them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The most bytes of a tenant's name. Postgres allows 63 in the name of a schema, and the name of
/// the tenant's schema begins with `datasets_`.
pub const MAX_TENANT_BYTES: usize = 48;

/// The tenant of requests that name no other.
const DEFAULT: &str = "default";

/// The name of a tenant: 1 to 48 characters of `a-z`, `0-9`, `_` and `-`, beginning with a letter
/// or a digit. It has no upper-case letters, because it is a part of the names of tables, and
/// SQLite does not distinguish upper and lower case in them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Tenant(String);

impl Tenant {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the tenant `default`.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT
    }
}

/// The tenant `default`.
impl Default for Tenant {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not the name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotATenant(String);

impl FromStr for Tenant {
    type Err = NotATenant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map_err(NotATenant)?;
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name of a tenant must not be empty".to_owned());
    }
    if name.len() > MAX_TENANT_BYTES {
        return Err(format!(
            "the name of a tenant has at most {MAX_TENANT_BYTES} bytes, and this one has {}",
            name.len()
        ));
    }
    let is_letter_or_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = name.bytes();
    let is_valid = bytes.next().is_some_and(is_letter_or_digit)
        && bytes.all(|byte| is_letter_or_digit(byte) || matches!(byte, b'_' | b'-'));
    match is_valid {
        true => Ok(()),
        false => Err(
            "the name of a tenant has the characters `a-z`, `0-9`, `_` and `-` only, and begins with a letter or a digit"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(name: &str) -> String {
        name.parse::<Tenant>().unwrap_err().to_string()
    }

    #[test]
    fn the_default_tenant_has_a_valid_name() {
        let tenant = Tenant::default();
        assert_eq!(tenant.as_str().parse(), Ok(tenant.clone()));
        assert!(tenant.is_default());
        assert!(!"other".parse::<Tenant>().unwrap().is_default());
    }

    #[test]
    fn the_fault_of_a_tenant_s_name_says_the_rule() {
        assert!(fault("").ends_with("must not be empty"));
        assert_eq!(
            fault(&"a".repeat(49)),
            "the name of a tenant has at most 48 bytes, and this one has 49"
        );
        for name in [
            "A", "-a", "_a", "a b", "a/b", "a.b", "é", "a\0", "a\n", "a\"",
        ] {
            assert!(
                fault(name).contains("`a-z`, `0-9`, `_` and `-` only"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_tenant_is_a_string_in_json_and_is_checked_when_it_is_read() {
        let tenant: Tenant = serde_json::from_str("\"acme-2\"").unwrap();
        assert_eq!(serde_json::to_string(&tenant).unwrap(), "\"acme-2\"");
        assert!(serde_json::from_str::<Tenant>("\"Acme\"").is_err());
    }

    proptest! {
        #[test]
        fn a_name_of_these_characters_is_a_tenant(name in "[a-z0-9][a-z0-9_-]{0,47}") {
            let tenant: Tenant = name.parse().unwrap();
            prop_assert_eq!(tenant.to_string(), name);
        }

        #[test]
        fn no_other_text_is_a_tenant(
            name in prop_oneof!["[a-z0-9]{0,3}[^a-z0-9_-][a-z0-9]{0,3}", "[_-][a-z]{0,3}", "[a-z]{49,60}", any::<String>()],
        ) {
            let is_allowed = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
            let is_tenant = name.starts_with(is_allowed)
                && name.chars().all(|it| is_allowed(it) || it == '_' || it == '-')
                && name.len() <= 48;
            prop_assert_eq!(name.parse::<Tenant>().is_ok(), is_tenant);
        }
    }
}
