//! The events of uploads: what happened to them, for other programs.
//!
//! Each change of an upload's status writes one event, in its transaction: the databases do this by
//! triggers (migration 19). Clients read the events as a list, and workers send them to the broker.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::tenant::Tenant;
use crate::upload::UploadId;

/// An event, as clients read it and as receivers get it from the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// The id of the event. An event may be received again, with the same id.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "uuid"))]
    pub id: Uuid,
    /// `upload.` and the new status, such as `upload.completed`. A newer build may add others.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of the upload.
    pub upload: UploadId,
    /// When the status changed.
    pub at: Timestamp,
    /// The figures that were known at that moment.
    pub rows: EventRows,
}

/// The figures of an upload's rows, as in the upload. `None`: not known at that moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct EventRows {
    /// Records of the file.
    pub read: Option<u64>,
    /// Rows that are stored as new rows.
    pub inserted: Option<u64>,
    /// Rows that replaced a stored row with the same key.
    pub updated: Option<u64>,
    /// Rows that changed nothing.
    pub duplicate: Option<u64>,
    /// Records that were rejected. The rows that a table rejects are counted once the upload has
    /// ended.
    pub rejected: Option<u64>,
    /// Rows of dead letters.
    pub dead: Option<u64>,
    /// Rows of an upload that failed, was cancelled or was undone.
    pub discarded: Option<u64>,
    /// Rows that were read and are not stored: 0 once the upload has ended.
    pub pending: Option<u64>,
}

/// An event that a worker sends to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedEvent {
    /// The number of the event in the store.
    pub number: u64,
    /// The tenant of the upload.
    pub tenant: Tenant,
    /// The event.
    pub event: Event,
}

impl ClaimedEvent {
    /// The routing key of the event: the tenant and the type, such as `acme.upload.completed`. No
    /// tenant has a dot in its name.
    pub fn routing_key(&self) -> String {
        format!("{}.{}", self.tenant, self.event.kind)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        Event {
            id: Uuid::from_u128(1),
            kind: "upload.processing".to_owned(),
            upload: Uuid::from_u128(2).into(),
            at: Timestamp::UNIX_EPOCH,
            rows: serde_json::from_str(r#"{ "read": 7 }"#).unwrap(),
        }
    }

    #[test]
    fn an_event_has_every_figure_and_those_that_are_not_known_are_null() {
        let expected = json!({
            "id": "00000000-0000-0000-0000-000000000001",
            "type": "upload.processing",
            "upload": "00000000-0000-0000-0000-000000000002",
            "at": "1970-01-01T00:00:00Z",
            "rows": {
                "read": 7, "inserted": null, "updated": null, "duplicate": null, "rejected": null,
                "dead": null, "discarded": null, "pending": null,
            },
        });
        assert_eq!(serde_json::to_value(event()).unwrap(), expected);
    }

    #[test]
    fn a_routing_key_has_the_tenant_and_the_type() {
        let claimed = ClaimedEvent {
            number: 1,
            tenant: "a-b_1".parse().unwrap(),
            event: event(),
        };
        assert_eq!(claimed.routing_key(), "a-b_1.upload.processing");
    }
}
