//! The fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! `RateLimit-Policy` lists the limits that apply to the request: each with its quota (`q`) and its
//! window in seconds (`w`). `RateLimit` shows the limit with the smallest share left: how many
//! requests remain (`r`), and after how many seconds all of them are back (`t`).

use std::fmt::Write;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use carga_common::limiter::{Decision, Standing};

use super::Policy;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Adds the fields to the answer to a counted request.
pub(super) fn add(response: &mut Response, policies: &[Policy], decision: &Decision) {
    let fields = [
        (POLICY, policy_field(policies)),
        (LIMIT, limit_field(policies, &decision.standings)),
    ];
    for (name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn policy_field(policies: &[Policy]) -> Option<String> {
    let mut field = String::with_capacity(80);
    for Policy { name, quota, .. } in policies {
        if !field.is_empty() {
            field.push_str(", ");
        }
        let (requests, window) = (quota.requests(), quota.window().as_secs());
        // Writing into a text does not fail.
        let _ = write!(field, "\"{name}\";q={requests};w={window}");
    }
    (!field.is_empty()).then_some(field)
}

fn limit_field(policies: &[Policy], standings: &[Standing]) -> Option<String> {
    let limits = policies.iter().zip(standings);
    let (policy, standing) = limits.min_by(|one, other| {
        let left = |(policy, standing): &(&Policy, &Standing)| {
            f64::from(standing.remaining) / f64::from(policy.quota.requests())
        };
        // Of two limits of which the same part is left, the one with fewer requests.
        let by_part = left(one).total_cmp(&left(other));
        by_part.then_with(|| one.1.remaining.cmp(&other.1.remaining))
    })?;
    let seconds = whole_secs(standing.full_in);
    Some(format!(
        "\"{}\";r={};t={seconds}",
        policy.name, standing.remaining
    ))
}

/// Whole seconds, rounded up.
pub(super) fn whole_secs(time: Duration) -> u32 {
    let seconds = time.as_micros().div_ceil(1_000_000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use carga_common::limiter::Quota;

    use super::*;

    fn policy(name: &'static str, requests: u32, window_secs: u64) -> Policy {
        let requests = NonZeroU32::new(requests).unwrap();
        Policy {
            name,
            setting: "",
            quota: Quota::new(requests, Duration::from_secs(window_secs)),
        }
    }

    fn standing(remaining: u32, full_in_ms: u64) -> Standing {
        Standing {
            remaining,
            full_in: Duration::from_millis(full_in_ms),
            wait: Duration::ZERO,
        }
    }

    #[test]
    fn the_fields_have_the_form_of_the_draft() {
        let policies = [
            policy("address", 1000, 60),
            policy("key", 100, 60),
            policy("burst", 10, 1),
        ];
        let expected = "\"address\";q=1000;w=60, \"key\";q=100;w=60, \"burst\";q=10;w=1";
        assert_eq!(policy_field(&policies).as_deref(), Some(expected));
        let mut standings = [
            standing(300, 42_000),
            standing(12, 52_800),
            standing(9, 100),
        ];
        let field = |standings: &[Standing]| limit_field(&policies, standings);
        assert_eq!(field(&standings).as_deref(), Some("\"key\";r=12;t=53"));
        standings[2] = standing(0, 1000);
        assert_eq!(field(&standings).as_deref(), Some("\"burst\";r=0;t=1"));
        standings[0] = standing(0, 60_000);
        standings[1] = standing(0, 60_000);
        assert!(field(&standings).is_some());
        assert_eq!(policy_field(&[]), None);
        assert_eq!(limit_field(&[], &[]), None);
    }

    #[test]
    fn seconds_are_rounded_up() {
        let secs = |ms| whole_secs(Duration::from_millis(ms));
        assert_eq!([secs(0), secs(1), secs(1000), secs(1001)], [0, 1, 1, 2]);
        // The limiter counts in microseconds.
        assert_eq!(whole_secs(Duration::from_micros(1_000_001)), 2);
    }
}
