//! The refusals of requests without a key that is known to be valid.

use carga_intake::refusal::{Refusal, RefusalKind};

/// The code of the refusal of a request without a key.
pub(super) const MISSING_KEY: &str = "missing_key";

pub(super) fn missing() -> Refusal {
    let message = "the request has no API key; send one as `X-API-Key: KEY` or `Authorization: Bearer KEY`; `carga keys create` and `POST /keys` make keys";
    Refusal::new(RefusalKind::Unauthenticated, MISSING_KEY, message)
}

/// The reason is for the log alone.
pub(super) fn invalid(id: &str, reason: &str) -> Refusal {
    tracing::debug!(key.id = id, reason, "refused a key");
    let message = "the API key, token or JWT is not valid: it is mistyped, unknown, revoked, expired or not made for this Carga";
    Refusal::new(RefusalKind::Unauthenticated, "invalid_key", message)
}

/// The answer to a key that is not looked up, because too many unknown ones come from its address.
/// The limit of that address mostly refuses the request with 429 instead.
pub(super) fn not_looked_up() -> Refusal {
    let message = "this address has sent as many requests as it may, so a key that this server has not seen before is not looked up; retry later";
    Refusal::unavailable("key_check_busy", message)
}
