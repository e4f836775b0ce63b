//! The routes.

use std::sync::Arc;

use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, RouterIntoService, delete, get, post, put};
use axum::{BoxError, Router};

use crate::access::{self, Guard, Requirement, RouteAccess};
use crate::browsers::{self, Browsers};
use crate::caller::Caller;
use crate::drain_body;
use crate::limits;
use crate::measure::{self, HttpMetrics};
use crate::paths;
use crate::request_id;
use crate::routes::{
    audit, batches, datasets, events, exports, health, keys, log_filter, metrics, openapi, preview,
    read, reverse, send, suggest, tokens, validate,
};
use crate::state::SharedState;
use crate::unmatched;

/// A route: its path and method, what it requires of the caller, and its handler.
#[derive(Debug)]
struct Route {
    path: &'static str,
    method: Method,
    requirement: Requirement,
    handler: MethodRouter<SharedState>,
}

/// All routes. Those that require nothing may be requested from every web page and with every
/// `Host`.
fn routes() -> Vec<Route> {
    const READ: Requirement = Requirement::READ;
    const SEND: Requirement = Requirement::SEND;
    const CANCEL: Requirement = Requirement::CANCEL;
    const MANAGE: Requirement = Requirement::MANAGE;
    const ADMIN: Requirement = Requirement::ADMIN;
    vec![
        Route::get("/uploads", READ, read::list),
        Route::post("/uploads", SEND, send::post),
        Route::post("/uploads/preview", SEND, preview::post),
        Route::post("/uploads/validate", SEND, validate::post),
        Route::get("/uploads/{id}", READ, read::one),
        Route::put("/uploads/{id}", SEND, send::put),
        Route::get("/uploads/{id}/rows", READ, exports::rows),
        Route::get("/uploads/{id}/rejected", READ, exports::rejected),
        Route::post("/uploads/{id}/cancel", CANCEL, reverse::cancel),
        Route::post("/uploads/{id}/undo", MANAGE, reverse::undo),
        Route::get("/uploads/{id}/batches", READ, batches::list),
        Route::post("/uploads/{id}/retry", MANAGE, batches::retry_all),
        Route::post(
            "/uploads/{id}/batches/{seq}/retry",
            MANAGE,
            batches::retry_one,
        ),
        Route::get("/datasets", READ, datasets::list),
        Route::post("/datasets/suggest", SEND, suggest::post),
        Route::get("/datasets/suggest", READ, get_suggest),
        Route::put("/datasets/suggest", MANAGE, put_suggest),
        Route::delete("/datasets/suggest", MANAGE, delete_suggest),
        Route::get("/datasets/{name}", READ, datasets::one),
        Route::put("/datasets/{name}", MANAGE, datasets::put),
        Route::delete("/datasets/{name}", MANAGE, datasets::delete),
        Route::get("/events", READ, events::list),
        Route::get("/keys", ADMIN, keys::list),
        Route::post("/keys", ADMIN, keys::post),
        Route::delete("/keys/{id}", ADMIN, keys::delete),
        Route::post("/tokens", Requirement::ANY, tokens::post),
        Route::get("/audit", ADMIN, audit::list),
        Route::get("/admin/log", ADMIN, log_filter::get),
        Route::put("/admin/log", ADMIN, log_filter::put),
        Route::delete("/admin/log", ADMIN, log_filter::delete),
        Route::get(paths::METRICS, ADMIN, metrics::get),
        Route::get(paths::LIVE, Requirement::Open, health::live),
        Route::get(paths::READY, Requirement::Open, health::ready),
        Route::get(openapi::DOCUMENT, Requirement::Open, openapi::document),
        Route::get(openapi::PAGE, Requirement::Open, openapi::page_of_document),
    ]
}

/// What each route requires. `HEAD` requires the same as `GET`.
pub fn requirements() -> Vec<RouteAccess> {
    let routes = routes().into_iter();
    routes
        .map(|route| (route.method, route.path, route.requirement))
        .collect()
}

/// The service of all routes. It takes no further routes, because nothing would check their keys.
pub(crate) fn service<B>(state: SharedState) -> RouterIntoService<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let add = |router: Router<SharedState>, route: Route| router.route(route.path, route.handler);
    let handlers = routes().into_iter().fold(Router::new(), add);
    with_layers(handlers, state).into_service()
}

/// Adds the layers, which wrap only the handlers that are there already. A request runs through
/// them in the order in which they stand here.
fn with_layers(handlers: Router<SharedState>, state: SharedState) -> Router {
    // A request clones what each layer knows once for each layer around it, so that is little.
    let guard = Guard::new(state.access.clone(), requirements());
    let (limits, settings) = (&state.limits, &state.intake.settings);
    let browsers = Browsers {
        settings: Arc::clone(settings),
        guard: guard.clone(),
    };
    // In one call of `layer`, because each call adds a box, and each request clones all boxes.
    let layers = (
        middleware::from_fn_with_state(HttpMetrics::new(), measure::layer),
        middleware::from_fn_with_state(Arc::clone(settings), browsers::headers_layer),
        middleware::from_fn(request_id::layer),
        middleware::from_fn(drain_body::layer),
        // Counts the requests that a layer below refuses.
        middleware::from_fn_with_state(limits.clone(), limits::refused_layer),
        // Before the check of the key, because a page of another origin is refused with any key,
        // and a preflight request has none.
        middleware::from_fn_with_state(browsers, browsers::layer),
        middleware::from_fn_with_state(guard, access::layer),
        // Behind the check of the key, which tells whose request it is.
        middleware::from_fn_with_state(limits.clone(), limits::layer),
    );
    handlers
        .fallback(unmatched::not_found)
        .method_not_allowed_fallback(unmatched::method_not_allowed)
        .layer(layers)
        .with_state(state)
}

type Options = Query<Vec<(String, String)>>;

// A dataset may have the name `suggest`, so the other methods of that path are about this dataset.

async fn get_suggest(
    state: State<SharedState>,
    caller: Caller,
    query: Options,
) -> impl IntoResponse {
    datasets::one(state, caller, named_suggest(), query).await
}

async fn put_suggest(
    state: State<SharedState>,
    caller: Caller,
    query: Options,
    request: Request,
) -> impl IntoResponse {
    datasets::put(state, caller, named_suggest(), query, request).await
}

async fn delete_suggest(
    state: State<SharedState>,
    caller: Caller,
    query: Options,
) -> impl IntoResponse {
    datasets::delete(state, caller, named_suggest(), query).await
}

fn named_suggest() -> Result<Path<String>, PathRejection> {
    Ok(Path("suggest".to_owned()))
}

/// Makes a constructor of routes for each method.
macro_rules! constructors {
    ($($name:ident $method:ident)+) => {
        $(
            fn $name<H, T>(path: &'static str, requirement: Requirement, handler: H) -> Self
            where
                H: Handler<T, SharedState>,
                T: 'static,
            {
                Self {
                    path,
                    method: Method::$method,
                    requirement,
                    handler: $name(handler),
                }
            }
        )+
    };
}

impl Route {
    constructors! { delete DELETE get GET post POST put PUT }
}

#[cfg(test)]
mod tests;
