//! Each change of an upload's status leaves one event.

pub(super) mod listing;
pub(super) mod sending;
pub(super) mod writing;

use anyhow::Result;
use carga_common::events::{Event, EventRows};
use carga_common::store::{EventQuery, Store};
use carga_common::tenant::Tenant;
use carga_common::upload::UploadId;

fn query() -> EventQuery {
    EventQuery {
        tenant: Tenant::default(),
        created_by: None,
        after: 0,
        limit: 1000,
    }
}

/// All events of the tenant `default`, in their order.
async fn all(store: &dyn Store) -> Result<Vec<Event>> {
    let listed = store.events(&query()).await?.into_iter();
    Ok(listed.map(|listed| listed.event).collect())
}

/// The types of the events of an upload, without `upload.`, in their order.
fn kinds(events: &[Event], id: UploadId) -> Vec<&str> {
    let of_upload = events.iter().filter(|event| event.upload == id);
    let kinds = of_upload.map(|event| event.kind.trim_start_matches("upload."));
    kinds.collect()
}

/// The figures of an upload that has ended: `read`, `inserted`, `updated`, `duplicate`, `rejected`
/// and `discarded`.
fn ended(figures: [u64; 6]) -> EventRows {
    let [read, inserted, updated, duplicate, rejected, discarded] = figures.map(Some);
    EventRows {
        read,
        inserted,
        updated,
        duplicate,
        rejected,
        dead: Some(0),
        discarded,
        pending: Some(0),
    }
}
