//! `POST /uploads/validate`.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use carga_common::access::Scope;
use carga_common::rejects::RejectedRow;
use carga_common::store::TrialWarning;
use carga_common::upload::Dialect;
use carga_intake::validation::Validation;
use serde::Serialize;

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::receive::FileBody;
use crate::state::SharedState;

/// Reads a whole file, and says what an upload of it would do.
pub(crate) async fn post(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, ApiError> {
    let validator = &state.intake.validator;
    let validating = async {
        let mut file = FileBody::open(&state, &caller, &query, request).await?;
        let tenant = &caller.tenant;
        let limit = caller.size_limit(state.settings());
        let read = validator
            .read(tenant, &mut file.pieces, &file.options, limit)
            .await?;
        file.end().await?;
        validator.test(tenant, read, &file.options).await
    };
    let validation = state.intake.run_validation(validating).await?;
    Ok(match caller.has(Scope::Read) {
        true => Json(validation).into_response(),
        false => Json(Outline::from(validation)).into_response(),
    })
}

/// A validation for a caller without scope `read`. Whether a row would change the stored one, and
/// in which column, would let the caller guess stored values one by one.
#[derive(Debug, Serialize)]
struct Outline {
    dialect: Dialect,
    columns: Vec<String>,
    rows: OutlineOfRows,
    /// Always `null`.
    changed_columns: Option<()>,
    rejected: Vec<RejectedRow>,
    warnings: Vec<TrialWarning>,
}

#[derive(Debug, Serialize)]
struct OutlineOfRows {
    read: u64,
    would_insert: u64,
    /// Always `null`, and so is `unchanged`. The other numbers give their sum.
    would_update: Option<()>,
    unchanged: Option<()>,
    rejected: u64,
}

impl From<Validation> for Outline {
    fn from(validation: Validation) -> Self {
        let Validation {
            dialect,
            columns,
            rows,
            changed_columns: _,
            rejected,
            warnings,
        } = validation;
        Self {
            dialect,
            columns,
            rows: OutlineOfRows {
                read: rows.read,
                would_insert: rows.would_insert,
                would_update: None,
                unchanged: None,
                rejected: rows.rejected,
            },
            changed_columns: None,
            rejected,
            warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use carga_intake::validation::RowOutcomes;
    use serde_json::{Value, json};

    use super::*;

    fn fields(value: &Value) -> BTreeSet<&String> {
        value.as_object().unwrap().keys().collect()
    }

    #[test]
    fn an_outline_has_every_field_and_does_not_tell_which_values_differ() {
        let validation = || Validation {
            dialect: Dialect::rfc4180(false),
            columns: vec!["price".to_owned()],
            rows: RowOutcomes {
                read: 10,
                would_insert: 1,
                would_update: 3,
                unchanged: 4,
                rejected: 2,
            },
            changed_columns: [("price".to_owned(), 3)].into(),
            rejected: Vec::new(),
            warnings: Vec::new(),
        };
        let whole = serde_json::to_value(validation()).unwrap();
        let outline = serde_json::to_value(Outline::from(validation())).unwrap();
        assert_eq!(fields(&outline), fields(&whole));
        let rows = json!({
            "read": 10, "would_insert": 1, "would_update": null, "unchanged": null, "rejected": 2,
        });
        assert_eq!(outline["rows"], rows);
        assert_eq!(fields(&outline["rows"]), fields(&whole["rows"]));
        assert_eq!(outline["changed_columns"], Value::Null);
    }
}
