//! The routes.

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::drain_body;
use crate::origin;
use crate::request_id;
use crate::routes::{self, datasets, exports, health, preview, read, reverse, send};
use crate::state::ApiState;

pub(crate) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/uploads", get(read::list).post(send::post))
        .route("/uploads/preview", post(preview::post))
        .route("/uploads/{id}", get(read::one).put(send::put))
        .route("/uploads/{id}/rows", get(exports::rows))
        .route("/uploads/{id}/rejected", get(exports::rejected))
        .route("/uploads/{id}/cancel", post(reverse::cancel))
        .route("/uploads/{id}/undo", post(reverse::undo))
        .route("/datasets", get(datasets::list))
        .route(
            "/datasets/{name}",
            get(datasets::one)
                .put(datasets::put)
                .delete(datasets::delete),
        )
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), origin::layer))
        // A probe may use any name as host, so this layer does not cover the health checks.
        .merge(health_checks())
        .layer(middleware::from_fn(drain_body::layer))
        .layer(middleware::from_fn(request_id::layer))
        .with_state(state)
}

fn health_checks() -> Router<ApiState> {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .method_not_allowed_fallback(routes::method_not_allowed)
}
