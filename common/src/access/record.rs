//! What the store keeps of a key.

use jiff::Timestamp;
use serde::Serialize;

use super::{KeyId, Scopes};
use crate::dataset::DatasetName;
use crate::tenant::Tenant;

/// A key without its secret, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyRecord {
    /// The public part of the key.
    pub id: KeyId,
    /// The tenant to which the holder belongs.
    pub tenant: Tenant,
    /// What the holder may do.
    pub scopes: Scopes,
    /// The only dataset to which the holder may send files; `None` for no such limit.
    pub dataset: Option<DatasetName>,
    /// A name for people.
    pub name: Option<String>,
    /// When the key was made.
    pub created_at: Timestamp,
    /// The key with which this one was made; `None` if it was made on the command line, with
    /// `CARGA_ADMIN_KEY`, or without authentication.
    pub created_by: Option<KeyId>,
    /// When the key expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// When the key was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It may be used.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl KeyState {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl KeyRecord {
    /// Whether the key may be used at this time.
    pub fn state(&self, now: Timestamp) -> KeyState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => KeyState::Revoked,
            (None, Some(end)) if end <= now => KeyState::Expired,
            (None, _) => KeyState::Active,
        }
    }
}
