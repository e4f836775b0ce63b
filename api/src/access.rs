//! Checks who sends a request, and whether this client may do what it asks for.
//!
//! The layer runs after that of `browsers` and before every handler, and reads only the head of a
//! request. With authentication, a request is refused unless its route is in the list of `router`
//! and its key has one of the scopes that the route requires. `router` adds the layer after all
//! routes, and returns a service to which no route can be added. A route that is not in the list is
//! therefore closed.

mod announcement;
mod cache;
mod credential;
mod entries;
mod jwt;
mod keys;
mod metrics;
mod refusals;
mod requirement;
mod secret;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Query, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carga_common::audit::{Actor, acting_as};
use carga_common::dataset::DatasetName;
use carga_common::settings::Authentication;
use carga_common::store::Store;
use carga_intake::refusal::{Refusal, RefusalKind};
use tracing::{Span, field};

pub(crate) use self::announcement::announce;
use self::credential::take_credential;
pub use self::jwt::{JwtFault, JwtVerifier};
pub(crate) use self::keys::Keys;
use self::refusals::not_looked_up;
pub use self::requirement::Requirement;
use self::requirement::Requirements;
pub(crate) use self::tokens::TokenRequest;
use crate::caller::Caller;
use crate::marks::LookupAllowance;
use crate::problem::ApiError;
use crate::request_id::RequestId;
use crate::unmatched::method_not_allowed;

/// The path of a route with `{…}` for its parameters, its method, and what it requires.
pub type RouteAccess = (Method, &'static str, Requirement);

/// Who may send requests.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// Everybody may do everything.
    Open,
    /// Holders of these keys.
    WithKey(Arc<Keys>),
}

impl Access {
    /// `jwt` checks the JWTs of another issuer.
    pub(crate) fn new(
        authentication: &Authentication,
        jwt: Option<JwtVerifier>,
        store: &Arc<dyn Store>,
    ) -> Self {
        match authentication {
            Authentication::Off => Self::Open,
            Authentication::On(admin) => {
                let (keys, tokens) = (Arc::clone(store) as _, Arc::clone(store) as _);
                let keys = Keys::new(admin.as_ref(), jwt, keys, tokens);
                Self::WithKey(Arc::new(keys))
            }
        }
    }
}

/// The state of the layer.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    access: Access,
    requirements: Arc<Requirements>,
}

impl Guard {
    pub(crate) fn new(access: Access, routes: Vec<RouteAccess>) -> Self {
        let mut requirements = Requirements::default();
        for (method, path, requirement) in routes {
            requirements.add(path, method, requirement);
        }
        Self {
            access,
            requirements: Arc::new(requirements),
        }
    }

    /// The methods of a path for the header `Allow`.
    pub(crate) fn methods(&self, path: &str) -> String {
        self.requirements.allow(path)
    }
}

/// Refuses the request, or adds its [`Caller`].
pub(crate) async fn layer(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let key = take_credential(request.headers_mut());
    let Access::WithKey(keys) = &guard.access else {
        return run_as(Caller::unlimited(), Actor::nobody(), request, next).await;
    };
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map(MatchedPath::as_str);
    let requirement = path.map(|path| guard.requirements.of(path, request.method()));
    if requirement == Some(Some(Requirement::Open)) {
        return next.run(request).await;
    }
    let allowance = request.extensions().get::<LookupAllowance>();
    let allowance = allowance.filter(|_| keys.is_new(&key)).cloned();
    let admitted = match &allowance {
        Some(allowance) if !allowance.take() => Err(not_looked_up()),
        _ => admit(keys, requirement.flatten(), key, request.uri()).await,
    };
    if let Some(allowance) = allowance
        && has_valid_key(&admitted)
    {
        allowance.give_back();
    }
    keys.checks.count(&admitted);
    let caller = match admitted {
        Ok(caller) => caller,
        Err(refusal) => return ApiError::from(refusal).into_response(),
    };
    tracing::debug!(
        key.id = %caller,
        tenant = %caller.tenant(),
        only_own = caller.only_own,
        "accepted a key"
    );
    match (path, requirement) {
        (Some(path), Some(None)) => refuse_method(&guard, path, request.uri().clone()).await,
        // Without a path, the router answers 404.
        _ => {
            let actor = caller.actor();
            run_as(caller, actor, request, next).await
        }
    }
}

/// Adds the caller to the request, to its span and, for its line in the log, to its answer. The
/// audit log records the changes of the handler as those of the actor.
async fn run_as(caller: Caller, actor: Actor, mut request: Request, next: Next) -> Response {
    let span = Span::current();
    span.record("tenant", field::display(caller.tenant()));
    span.record("sender", caller.key_id());
    let extensions = request.extensions_mut();
    extensions.insert(caller.clone());
    let id = extensions
        .get::<RequestId>()
        .map(|RequestId(id)| id.clone());
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    let address = peer.map(|ConnectInfo(peer)| peer.ip().to_canonical());
    let actor = actor.in_request(id, address);
    let mut response = acting_as(actor, next.run(request)).await;
    response.extensions_mut().insert(caller);
    response
}

/// The caller, if it may use the route. A refusal does not tell a client without a valid key which
/// routes there are.
async fn admit(
    keys: &Keys,
    requirement: Option<Requirement>,
    key: Result<Option<Vec<u8>>, Refusal>,
    uri: &Uri,
) -> Result<Caller, Refusal> {
    let mut caller = keys.holder(key?.as_deref()).await?;
    if let Some(requirement) = requirement {
        requirement.check(&mut caller)?;
    }
    if requirement == Some(Requirement::SEND) {
        for dataset in datasets(uri) {
            caller.may_send_to(Some(&dataset))?;
        }
    }
    Ok(caller)
}

/// Whether a key is valid, even if it may not use the route.
fn has_valid_key(admitted: &Result<Caller, Refusal>) -> bool {
    match admitted {
        Ok(_) => true,
        Err(refusal) => refusal.kind == RefusalKind::Forbidden,
    }
}

/// The datasets in the query of a request. A form may name its dataset later, so the handler checks
/// the dataset, too. This check is made before the body is read.
fn datasets(uri: &Uri) -> Vec<DatasetName> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let options = query.map(|Query(options)| options).unwrap_or_default();
    let datasets = options.iter().filter(|(name, _)| name == "dataset");
    // The handler refuses a malformed name.
    datasets.filter_map(|(_, name)| name.parse().ok()).collect()
}

/// Refuses a method that is not in the list of routes, also if a handler takes it.
async fn refuse_method(guard: &Guard, path: &str, uri: Uri) -> Response {
    let mut response = method_not_allowed(uri).await.into_response();
    if let Ok(allow) = HeaderValue::from_str(&guard.requirements.allow(path)) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

#[cfg(test)]
mod tests;
