//! `GET /openapi.json` and `GET /docs`: the OpenAPI document and its page.

use std::sync::LazyLock;

use axum::extract::Query;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carga_common::sha256::Sha256;

use crate::openapi::{POLICY, compact_document, page};
use crate::problem::ApiError;
use crate::query::no_options;

/// The paths of the document and of its page.
pub(crate) const DOCUMENT: &str = "/openapi.json";
pub(crate) const PAGE: &str = "/docs";

static DOCUMENT_TAG: LazyLock<String> = LazyLock::new(|| tag(compact_document()));
static PAGE_TAG: LazyLock<String> = LazyLock::new(|| tag(page()));

pub(crate) async fn document(
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    no_options(&query)?;
    let head = [(header::CONTENT_TYPE, "application/json")];
    Ok(cacheable(&headers, &DOCUMENT_TAG, head, compact_document()))
}

pub(crate) async fn page_of_document(
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    no_options(&query)?;
    let head = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
    ];
    Ok(cacheable(&headers, &PAGE_TAG, head, page()))
}

/// The `ETag` of a text: its digest, which an upgrade may change.
fn tag(text: &str) -> String {
    format!("\"{}\"", Sha256::of(text.as_bytes()))
}

/// Answers with a text that a client may keep, if it asks each time whether the text has changed.
/// A client that has this version gets 304 without the text.
fn cacheable<const N: usize>(
    headers: &HeaderMap,
    tag: &str,
    head: [(HeaderName, &'static str); N],
    text: &'static str,
) -> Response {
    let cached = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache")];
    match is_current(headers, tag) {
        true => {
            let mut response = (StatusCode::NOT_MODIFIED, cached, head).into_response();
            response.headers_mut().remove(header::CONTENT_TYPE);
            response
        }
        false => (cached, head, text).into_response(),
    }
}

/// Whether the client has this version (RFC 9110, 13.1.2).
fn is_current(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter();
    let given = given.filter_map(|value| value.to_str().ok());
    let mut tags = given.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|given| given == "*" || given.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    async fn answer(if_none_match: Option<&str>) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(tags) = if_none_match {
            let tags = HeaderValue::from_str(tags).unwrap();
            headers.insert(header::IF_NONE_MATCH, tags);
        }
        page_of_document(Query(Vec::new()), headers).await.unwrap()
    }

    #[tokio::test]
    async fn a_client_that_has_the_page_gets_304_and_no_page() {
        let first = answer(None).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache");
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for tags in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let again = answer(Some(&tags)).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{tags}");
            assert_eq!(again.headers()[header::ETAG], *tag);
            let body = axum::body::to_bytes(again.into_body(), 1).await.unwrap();
            assert!(body.is_empty());
        }
        assert_eq!(answer(Some("\"other\"")).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn the_document_and_the_page_take_no_options() {
        let options = || Query(vec![("v".to_owned(), "1".to_owned())]);
        assert!(document(options(), HeaderMap::new()).await.is_err());
        assert!(page_of_document(options(), HeaderMap::new()).await.is_err());
    }
}
