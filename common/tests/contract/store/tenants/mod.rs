//! What tenants do not see of each other: promises of `UploadStore` and `DatasetStore`, and of the
//! other subjects for the rows of two tenants.

pub(super) mod datasets;
pub(super) mod rows;
pub(super) mod uploads;

use anyhow::Result;
use carga_common::dataset::DatasetKey;
use carga_common::store::{NewUpload, Store};
use carga_common::tenant::Tenant;
use carga_common::upload::{Upload, UploadId};

use super::datasets::key_of;
use super::new_upload;
use crate::sample;

/// The tenant `default` and another one.
fn two_tenants() -> Result<[Tenant; 2]> {
    Ok([Tenant::default(), "acme-2".parse()?])
}

/// A dataset of each of two tenants, with the same name.
fn two_datasets() -> Result<[DatasetKey; 2]> {
    let [one, other] = two_tenants()?;
    Ok([key_of(one, "sales")?, key_of(other, "sales")?])
}

/// An upload of a tenant with this public id.
fn new_upload_of(tenant: &Tenant, public_id: UploadId) -> NewUpload {
    NewUpload {
        tenant: tenant.clone(),
        ..new_upload(public_id, sample::columns())
    }
}

/// Creates an upload with this public id.
async fn begin(store: &dyn Store, tenant: &Tenant, public_id: UploadId) -> Result<Upload> {
    Ok(store.create(&new_upload_of(tenant, public_id)).await?)
}
