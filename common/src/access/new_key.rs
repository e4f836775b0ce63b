//! The rules for a new key.

use jiff::{Timestamp, Unit};

use super::{ApiKey, KeyId, KeyRecord, Scope, Scopes};
use crate::dataset::DatasetName;
use crate::idempotency::fingerprint;
use crate::sha256::Sha256;
use crate::tenant::Tenant;

/// The longest name of a key, in characters.
const MAX_NAME_CHARS: usize = 100;

/// What a new key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The tenant to which the holder belongs.
    pub tenant: Tenant,
    /// What the holder may do.
    pub scopes: Scopes,
    /// The only dataset to which the holder may send files.
    pub dataset: Option<DatasetName>,
    /// A name for people.
    pub name: Option<String>,
    /// When the key expires.
    pub expires_at: Option<Timestamp>,
}

/// A field of a new key that contradicts the others, or that has an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {reason}")]
pub struct KeyFault {
    /// The field.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl KeyFault {
    /// A fault of this field.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { field, reason }
    }
}

impl NewKey {
    /// The record of this key. Times are cut to microseconds, which every database keeps.
    pub fn record(
        self,
        key: &ApiKey,
        created_by: Option<KeyId>,
        now: Timestamp,
    ) -> Result<KeyRecord, KeyFault> {
        let Self {
            tenant,
            scopes,
            dataset,
            name,
            expires_at,
        } = self;
        if dataset.is_some() {
            check_dataset_limit(scopes)?;
        }
        if let Some(name) = &name {
            check_name(name)?;
        }
        if let Some(end) = expires_at.filter(|end| *end <= now) {
            let reason = format!("{end} is in the past; name a later time, or leave the field out");
            return Err(KeyFault::new("expires_at", reason));
        }
        Ok(KeyRecord {
            id: key.id().clone(),
            tenant,
            scopes,
            dataset,
            name,
            created_at: in_microseconds(now),
            created_by,
            expires_at: expires_at.map(in_microseconds),
            revoked_at: None,
        })
    }
}

impl NewKey {
    /// The fingerprint of all fields. The order of the scopes does not matter.
    pub fn fingerprint(&self) -> Sha256 {
        let Self {
            tenant,
            scopes,
            dataset,
            name,
            expires_at,
        } = self;
        let (scopes, end) = (scopes.to_string(), expires_at.map(|end| end.to_string()));
        let dataset = dataset.as_ref().map(DatasetName::as_str);
        let fields = [
            ("tenant", Some(tenant.as_str())),
            ("scopes", Some(&*scopes)),
            ("dataset", dataset),
            ("name", name.as_deref()),
            ("expires_at", end.as_deref()),
        ];
        let given = fields.into_iter();
        fingerprint(given.filter_map(|(field, value)| Some((field, value?))))
    }
}

/// Checks that the holder of these scopes can be limited to one dataset.
pub fn check_dataset_limit(scopes: Scopes) -> Result<(), KeyFault> {
    let reason = match (scopes.contain(Scope::Admin), scopes.contain(Scope::Upload)) {
        (true, _) => "scope `admin` allows everything; leave `admin` or the dataset out",
        (false, false) => {
            "only scope `upload` is limited to a dataset; add `upload`, or leave the dataset out"
        }
        (false, true) => return Ok(()),
    };
    Err(KeyFault::new("dataset", reason))
}

fn check_name(name: &str) -> Result<(), KeyFault> {
    let length = name.chars().count();
    let is_short = (1..=MAX_NAME_CHARS).contains(&length);
    if is_short && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let reason = format!("a name has 1 to {MAX_NAME_CHARS} characters and no control characters");
    Err(KeyFault::new("name", reason))
}

fn in_microseconds(time: Timestamp) -> Timestamp {
    let round = jiff::TimestampRound::new().smallest(Unit::Microsecond);
    let cut = time.round(round.mode(jiff::RoundMode::Trunc));
    cut.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_key(scopes: &str) -> NewKey {
        NewKey {
            tenant: Tenant::default(),
            scopes: scopes.parse().unwrap(),
            dataset: None,
            name: None,
            expires_at: None,
        }
    }

    fn now() -> Timestamp {
        "2026-11-26T05:00:00.1234567Z".parse().unwrap()
    }

    fn record(key: NewKey) -> Result<KeyRecord, KeyFault> {
        key.record(&ApiKey::generate().unwrap(), None, now())
    }

    fn faulty_field(key: NewKey) -> &'static str {
        record(key).unwrap_err().field
    }

    #[test]
    fn times_of_a_record_have_microseconds() {
        let expires_at = "2026-11-26T05:00:00.9999999Z".parse().ok();
        let record = record(NewKey {
            expires_at,
            ..new_key("read")
        });
        let record = record.unwrap();
        assert_eq!(record.created_at.to_string(), "2026-11-26T05:00:00.123456Z");
        let end = record.expires_at.unwrap();
        assert_eq!(end.to_string(), "2026-11-26T05:00:00.999999Z");
    }

    #[test]
    fn a_key_that_ends_before_it_begins_is_a_fault() {
        let ending = |time: &str| NewKey {
            expires_at: time.parse().ok(),
            ..new_key("read")
        };
        assert_eq!(faulty_field(ending("2026-11-26T04:59:59Z")), "expires_at");
        assert_eq!(faulty_field(ending(&now().to_string())), "expires_at");
        assert!(record(ending("2026-11-26T05:00:01Z")).is_ok());
    }

    #[test]
    fn only_a_key_with_scope_upload_and_without_admin_is_limited_to_a_dataset() {
        let limited = |scopes| NewKey {
            dataset: "sales".parse().ok(),
            ..new_key(scopes)
        };
        for scopes in ["read", "manage", "admin", "admin upload"] {
            assert_eq!(faulty_field(limited(scopes)), "dataset", "{scopes}");
        }
        for scopes in ["upload", "upload read manage"] {
            assert!(record(limited(scopes)).is_ok(), "{scopes}");
        }
    }

    #[test]
    fn every_field_of_a_key_changes_its_fingerprint_and_the_order_of_scopes_does_not() {
        let key = || new_key("read upload");
        let print = key().fingerprint();
        assert_eq!(new_key("upload read").fingerprint(), print);
        let different = [
            new_key("read"),
            NewKey {
                tenant: "acme".parse().unwrap(),
                ..key()
            },
            NewKey {
                dataset: "sales".parse().ok(),
                ..key()
            },
            NewKey {
                name: Some("sales".to_owned()),
                ..key()
            },
            NewKey {
                expires_at: Some(now()),
                ..key()
            },
        ];
        for (index, key) in different.iter().enumerate() {
            let others = different[..index].iter().map(NewKey::fingerprint);
            assert!(
                others
                    .chain([print])
                    .all(|other| other != key.fingerprint())
            );
        }
    }

    #[test]
    fn a_name_is_short_and_has_no_control_characters() {
        let named = |name: &str| NewKey {
            name: Some(name.to_owned()),
            ..new_key("read")
        };
        for name in ["", "a\nb", "a\0", &"é".repeat(101)] {
            assert_eq!(faulty_field(named(name)), "name", "{name:?}");
        }
        assert!(record(named(&"é".repeat(100))).is_ok());
    }

    #[test]
    fn a_key_is_active_until_it_expires_or_is_revoked() {
        use crate::access::KeyState;
        let mut record = record(new_key("read")).unwrap();
        assert_eq!(record.state(now()), KeyState::Active);
        record.expires_at = "2026-11-27T00:00:00Z".parse().ok();
        assert_eq!(record.state(now()), KeyState::Active);
        let end = record.expires_at.unwrap();
        assert_eq!(record.state(end), KeyState::Expired);
        record.revoked_at = Some(now());
        assert_eq!(record.state(end), KeyState::Revoked);
    }
}
