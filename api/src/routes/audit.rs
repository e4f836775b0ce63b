//! `GET /audit`: who has changed what.

use axum::Json;
use axum::extract::{Query, State};
use carga_common::audit::AuditEntry;
use carga_common::tenant::Tenant;
use carga_intake::refusal::Refusal;
use serde::Serialize;

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::query::{DEFAULT_LIMIT, cut_to_page, limit, tenant};
use crate::state::SharedState;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = AuditPage))]
pub(crate) struct Page {
    entries: Vec<AuditEntry>,
    /// The value of `after` for the next page; `None` on the last page.
    next: Option<u64>,
}

pub(crate) async fn list(
    State(state): State<SharedState>,
    _caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, ApiError> {
    let Listing {
        tenant,
        after,
        limit,
    } = listing(&query)?;
    let store = state.backends().store.as_ref();
    // One entry more than requested shows whether there is a next page.
    let listed = store.audit_entries(tenant.as_ref(), after, limit + 1);
    let mut entries = listed.await?;
    let has_next = cut_to_page(&mut entries, limit);
    let last = entries.last().filter(|_| has_next);
    let next = last.map(|last| last.id);
    Ok(Json(Page { entries, next }))
}

/// Which entries are listed.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    tenant: Option<Tenant>,
    after: u64,
    limit: u32,
}

/// The options of the list.
pub(crate) const LIST_OPTIONS: [&str; 3] = ["tenant", "after", "limit"];

fn listing(query: &[(String, String)]) -> Result<Listing, Refusal> {
    let (mut owner, mut after, mut most) = (None, None, None);
    for (name, value) in query {
        let is_repeated = match name.as_str() {
            "tenant" => owner.replace(tenant(value)?).is_some(),
            "after" => {
                let id = value.parse().map_err(|_| {
                    Refusal::malformed_option("after", "the `id` of an entry, or 0")
                })?;
                after.replace(id).is_some()
            }
            "limit" => most.replace(limit(value)?).is_some(),
            _ => return Err(Refusal::unknown_option(name, &LIST_OPTIONS)),
        };
        if is_repeated {
            return Err(Refusal::repeated_option(name));
        }
    }
    Ok(Listing {
        tenant: owner,
        after: after.unwrap_or(0),
        limit: most.unwrap_or(DEFAULT_LIMIT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Listing, Refusal> {
        let owned = query
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        listing(&owned.collect::<Vec<_>>())
    }

    #[test]
    fn a_list_begins_with_the_first_entry_of_all_tenants_unless_options_say_otherwise() {
        let all = Listing {
            tenant: None,
            after: 0,
            limit: DEFAULT_LIMIT,
        };
        assert_eq!(read(&[]).unwrap(), all);
        let some = Listing {
            tenant: "acme".parse().ok(),
            after: 7,
            limit: 5,
        };
        let query = [("tenant", "acme"), ("after", "7"), ("limit", "5")];
        assert_eq!(read(&query).unwrap(), some);
    }

    #[test]
    fn a_faulty_option_of_the_list_is_refused() {
        for query in [
            [("tenant", "A")].as_slice(),
            &[("after", "-1")],
            &[("after", "x")],
            &[("limit", "0")],
            &[("cursor", "1")],
            &[("after", "1"), ("after", "1")],
        ] {
            assert!(read(query).is_err(), "{query:?}");
        }
    }
}
