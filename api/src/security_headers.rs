//! Headers that protect the users of a browser. Every answer has them, also a refusal.
//!
//! | Header | Prevents |
//! |---|---|
//! | `X-Content-Type-Options` | that a browser runs a CSV file as a page or a script |
//! | `Content-Security-Policy` | that an answer loads or runs anything, or is shown in a frame |
//! | `Cross-Origin-Resource-Policy` | that a page of another origin embeds an answer |
//! | `Referrer-Policy` | that a browser sends the URL, which has ids, to another site |
//! | `Cache-Control` | that rows stay in a cache |
//! | `Strict-Transport-Security` | that a browser later uses this host without TLS |
//!
//! A handler that sets one of them itself keeps its own value. None of them concerns the requests
//! of scripts, which [`cors`](crate::cors) permits.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use carga_common::settings::IntakeSettings;

use crate::origin::names_localhost;

const DEFAULTS: [(HeaderName, HeaderValue); 4] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// The policy of data: nothing of it is loaded or run.
const DATA_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The policy of a page that has none of its own.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static("frame-ancestors 'none'");

/// For how long a browser uses the host of this request only with TLS; `None` without TLS.
pub(crate) fn hsts_secs(request: &Request, settings: &IntakeSettings) -> Option<u32> {
    // For `localhost`, the header would apply to every other program on a developer's machine.
    let only_tls = settings.tls.is_some() && !names_localhost(request);
    only_tls.then_some(settings.hsts_secs)
}

/// Adds the headers. `hsts_secs` is for how long the browser uses this host only with TLS. With 0,
/// an answer does not say so. A zero in the header would make browsers forget what a proxy or
/// another program of the host has told them.
pub(crate) fn protect(headers: &mut HeaderMap, hsts_secs: Option<u32>) {
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(value);
    }
    let policy = match is_page(headers) {
        true => PAGE_POLICY,
        false => DATA_POLICY,
    };
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(policy);
    if let Some(seconds) = hsts_secs.filter(|seconds| *seconds > 0)
        && let Ok(demand) = HeaderValue::from_str(&format!("max-age={seconds}"))
    {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(demand);
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected(own: &[(HeaderName, &'static str)], hsts_secs: Option<u32>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in own {
            headers.insert(name, HeaderValue::from_static(value));
        }
        protect(&mut headers, hsts_secs);
        headers
    }

    #[test]
    fn an_answer_gets_every_header_and_hsts_only_with_tls() {
        let plain = protected(&[(header::CONTENT_TYPE, "application/json")], None);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
        ] {
            assert_eq!(plain[name], value);
        }
        assert!(!plain.contains_key("strict-transport-security"));
        for seconds in [31_536_000, 1] {
            let with_tls = protected(&[], Some(seconds));
            let demand = format!("max-age={seconds}");
            assert_eq!(with_tls["strict-transport-security"], *demand);
        }
        let without = protected(&[], Some(0));
        assert!(!without.contains_key("strict-transport-security"));
    }

    #[test]
    fn a_handler_keeps_its_own_headers() {
        let own = [
            (header::CACHE_CONTROL, "private, max-age=60"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'self'"),
        ];
        let headers = protected(&own, None);
        for (name, value) in own {
            assert_eq!(headers[&name], value);
            assert_eq!(headers.get_all(&name).iter().count(), 1);
        }
    }

    #[test]
    fn a_page_may_load_its_files_but_is_not_shown_in_a_frame() {
        let headers = protected(&[(header::CONTENT_TYPE, "text/html; charset=utf-8")], None);
        assert_eq!(headers["content-security-policy"], "frame-ancestors 'none'");
    }
}
