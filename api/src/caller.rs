//! The sender of a request, and its tenant.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use carga_common::tenant::Tenant;

use crate::state::ApiState;

/// The sender of a request. Every handler of uploads and datasets takes it, and acts for its tenant
/// only.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) tenant: Tenant,
}

/// Until there are keys, every request is of the tenant `default`.
impl FromRequestParts<ApiState> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(
        _parts: &mut Parts,
        _state: &ApiState,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self {
            tenant: Tenant::default(),
        })
    }
}
