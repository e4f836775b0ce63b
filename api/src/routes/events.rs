//! `GET /events`: what happened to uploads, in order.

use axum::Json;
use axum::extract::{Query, State};
use carga_common::events::Event;
use carga_common::store::EventQuery;
use carga_intake::refusal::Refusal;
use serde::Serialize;

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::query::{DEFAULT_LIMIT, limit};
use crate::state::SharedState;

/// A page of events.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = EventPage))]
pub(crate) struct Page {
    /// The events. Those of one upload are in the order of its changes.
    events: Vec<Event>,
    /// The value of `after` for the next page. It is there on every page, also on an empty one, so
    /// that a client can wait for further events.
    next: String,
}

pub(crate) async fn list(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, ApiError> {
    let Listing { after, limit } = listing(&query)?;
    let query = EventQuery {
        created_by: caller.only_sender(),
        tenant: caller.tenant,
        after,
        limit,
    };
    let listed = state.backends().store.events(&query).await?;
    let next = listed.last().map_or(after, |last| last.position);
    Ok(Json(Page {
        events: listed.into_iter().map(|listed| listed.event).collect(),
        next: next.to_string(),
    }))
}

/// Which events are listed.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    after: u64,
    limit: u32,
}

/// The options of the list.
pub(crate) const LIST_OPTIONS: [&str; 2] = ["after", "limit"];

fn listing(query: &[(String, String)]) -> Result<Listing, Refusal> {
    let (mut after, mut most) = (None, None);
    for (name, value) in query {
        let is_repeated = match name.as_str() {
            "after" => {
                let position = position(value)
                    .ok_or_else(|| Refusal::malformed_option("after", "the `next` of a page"))?;
                after.replace(position).is_some()
            }
            "limit" => most.replace(limit(value)?).is_some(),
            _ => return Err(Refusal::unknown_option(name, &LIST_OPTIONS)),
        };
        if is_repeated {
            return Err(Refusal::repeated_option(name));
        }
    }
    Ok(Listing {
        after: after.unwrap_or(0),
        limit: most.unwrap_or(DEFAULT_LIMIT),
    })
}

/// The most digits of a position.
const MOST_DIGITS: usize = 19;

fn position(text: &str) -> Option<u64> {
    let is_number = text.len() <= MOST_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
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
    fn a_list_begins_with_the_first_event_unless_options_say_otherwise() {
        let all = Listing {
            after: 0,
            limit: DEFAULT_LIMIT,
        };
        assert_eq!(read(&[]).unwrap(), all);
        let some = Listing { after: 7, limit: 5 };
        assert_eq!(read(&[("after", "7"), ("limit", "5")]).unwrap(), some);
    }

    #[test]
    fn a_faulty_option_of_the_list_is_refused() {
        for query in [
            [("after", "-1")].as_slice(),
            &[("after", "x")],
            &[("after", "+1")],
            &[("after", "00000000000000000001")],
            &[("limit", "0")],
            &[("limit", "101")],
            &[("tenant", "acme")],
            &[("after", "1"), ("after", "1")],
        ] {
            assert!(read(query).is_err(), "{query:?}");
        }
    }
}
