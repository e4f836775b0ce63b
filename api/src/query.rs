//! Parameters of requests, except the options of a file.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use carga_common::dataset::{DatasetName, NameFault};
use carga_common::tenant::{NotATenant, Tenant};
use carga_common::upload::UploadId;
use carga_intake::refusal::Refusal;

/// The length of a page of a list without the option `limit`.
pub(crate) const DEFAULT_LIMIT: u32 = 20;

const MAX_LIMIT: u32 = 100;

/// Parses the upload's id in the path.
pub(crate) fn upload_id(path: Result<Path<String>, PathRejection>) -> Result<UploadId, Refusal> {
    let refuse = |message: String| Refusal::malformed("malformed_id", message);
    let Path(text) = path.map_err(|_| refuse("the id in the path is not a UUID".to_owned()))?;
    text.parse()
        .map_err(|_| refuse(format!("`{text}` is not a UUID")))
}

/// Parses the dataset's name in the path.
pub(crate) fn dataset_name(
    path: Result<Path<String>, PathRejection>,
) -> Result<DatasetName, Refusal> {
    let refuse = |message: String| Refusal::malformed("malformed_name", message);
    let Path(text) = path.map_err(|_| refuse("the name in the path is not UTF-8".to_owned()))?;
    text.parse()
        .map_err(|fault: NameFault| refuse(fault.to_string()))
}

/// Parses the option `limit` of a list: how many records a page has at most.
pub(crate) fn limit(value: &str) -> Result<u32, Refusal> {
    let limit = value.parse().ok();
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        let takes = format!("a number from 1 to {MAX_LIMIT}");
        Refusal::malformed_option("limit", &takes)
    })
}

/// Parses the option `tenant` of a list.
pub(crate) fn tenant(value: &str) -> Result<Tenant, Refusal> {
    value.parse().map_err(|fault: NotATenant| {
        Refusal::malformed("malformed_option", format!("option `tenant`: {fault}"))
    })
}

/// Cuts a list to the length of a page, and returns whether there is a next page. The caller has
/// read one item more than `limit`.
pub(crate) fn cut_to_page<T>(listed: &mut Vec<T>, limit: u32) -> bool {
    let limit = limit as usize;
    let has_next = listed.len() > limit;
    listed.truncate(limit);
    has_next
}

/// The refusal of a cursor that is not the `next_cursor` of a page.
pub(crate) fn unknown_cursor() -> Refusal {
    let message = "option `cursor` was not issued by this API; use the `next_cursor` of a page";
    Refusal::malformed("malformed_option", message)
}

/// Refuses any option, for routes that have none.
pub(crate) fn no_options(query: &[(String, String)]) -> Result<(), Refusal> {
    match query.first() {
        Some((name, _)) => Err(Refusal::unknown_option(name, &[])),
        None => Ok(()),
    }
}
