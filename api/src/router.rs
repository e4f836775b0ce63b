//! The routes.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::middleware;
use axum::routing::{MethodRouter, get, post};

use crate::caller::Caller;
use crate::drain_body;
use crate::origin;
use crate::request_id;
use crate::routes::{
    self, datasets, exports, health, preview, read, reverse, send, suggest, validate,
};
use crate::state::ApiState;

pub(crate) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/uploads", get(read::list).post(send::post))
        .route("/uploads/preview", post(preview::post))
        .route("/uploads/validate", post(validate::post))
        .route("/uploads/{id}", get(read::one).put(send::put))
        .route("/uploads/{id}/rows", get(exports::rows))
        .route("/uploads/{id}/rejected", get(exports::rejected))
        .route("/uploads/{id}/cancel", post(reverse::cancel))
        .route("/uploads/{id}/undo", post(reverse::undo))
        .route("/datasets", get(datasets::list))
        .route("/datasets/suggest", suggest_or_dataset())
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

/// The route of suggestions. A dataset may have the name `suggest`, so the other methods of its
/// path are about this dataset.
fn suggest_or_dataset() -> MethodRouter<ApiState> {
    type Options = Query<Vec<(String, String)>>;
    let get = |state: State<ApiState>, caller: Caller, query: Options| {
        datasets::one(state, caller, named_suggest(), query)
    };
    let put = |state: State<ApiState>, caller: Caller, query: Options, request: Request| {
        datasets::put(state, caller, named_suggest(), query, request)
    };
    let delete = |state: State<ApiState>, caller: Caller, query: Options| {
        datasets::delete(state, caller, named_suggest(), query)
    };
    post(suggest::post).get(get).put(put).delete(delete)
}

fn named_suggest() -> Result<Path<String>, PathRejection> {
    Ok(Path("suggest".to_owned()))
}

fn health_checks() -> Router<ApiState> {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .method_not_allowed_fallback(routes::method_not_allowed)
}
