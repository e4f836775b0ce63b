//! `POST /uploads/validate`.

use axum::Json;
use axum::extract::{Query, Request, State};
use carga_intake::validation::Validation;

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::receive::FileBody;
use crate::state::ApiState;

/// Reads a whole file, and says what an upload of it would do.
pub(crate) async fn post(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Json<Validation>, ApiError> {
    let validator = &state.intake.validator;
    let validating = async {
        let mut file = FileBody::open(&state, &query, request).await?;
        let tenant = &caller.tenant;
        let read = validator
            .read(tenant, &mut file.pieces, &file.options)
            .await?;
        file.end().await?;
        validator.test(tenant, read, &file.options).await
    };
    let validation = state.intake.run_validation(validating).await?;
    Ok(Json(validation))
}
