//! Schemas of the types that are strings in JSON, for the API's OpenAPI document. The schemas of
//! all other types are derived beside the types.
//!
//! A pattern uses only the syntax that ECMAScript and Python share.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::access::{KeyId, Scope, Scopes, TokenId};
use crate::dataset::{DatasetName, TableName};
use crate::sha256::Sha256;
use crate::tenant::Tenant;
use crate::upload::UploadId;

/// A string with a description.
fn text(description: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.description(Some(description))
}

/// Implements the traits of `utoipa` for types that are strings in JSON.
macro_rules! texts {
    ($($type:ty => $schema:expr;)+) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    $schema.into()
                }
            }

            impl ToSchema for $type {}
        )+
    };
}

texts! {
    UploadId => text("The id of an upload: a UUIDv7, or the UUID that the client chose.")
        .format(Some(SchemaFormat::Custom("uuid".to_owned())));
    Sha256 => text("A SHA-256 digest as hexadecimal digits.")
        .pattern(Some("^[0-9a-fA-F]{64}$"));
    DatasetName => text(
        "The name of a dataset: 1 to 58 bytes without `/` and control characters. It is not blank, \
         `.` or `..`, and does not end in `_rows`.",
    )
    .min_length(Some(1))
    .max_length(Some(58))
    .pattern(Some(
        r"^(?!\.{1,2}$)(?!.*_[rR][oO][wW][sS]$)(?=.*\S)[^/\u0000-\u001f\u007f-\u009f]+$",
    ));
    TableName => text("The name of a table in Postgres, as `schema.name`.")
        .pattern(Some(r"^[^.\u0000]{1,63}\.[^.\u0000]{1,63}$"));
    Tenant => text(
        "The name of a tenant: 1 to 48 characters of `a-z`, `0-9`, `_` and `-`, first a letter or a \
         digit.",
    )
    .min_length(Some(1))
    .max_length(Some(48))
    .pattern(Some("^[a-z0-9][a-z0-9_-]*$"));
    KeyId => text("The public part of a key: the 12 letters and digits after `carga_`.")
        .pattern(Some("^[0-9A-Za-z]{12}$"));
    TokenId => text("The id of a token, as the log has it.")
        .pattern(Some("^[0-9A-Za-z]{22}$"));
    Scope => text("What the holder of a key may do.")
        .enum_values(Some(Scope::ALL.map(Scope::name)));
    Scopes => ArrayBuilder::new()
        .description(Some("What the holder of a key may do: at least one scope."))
        .items(RefOr::Ref(utoipa::openapi::Ref::from_schema_name("Scope")))
        .min_items(Some(1));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scope_of_the_schema_is_a_scope_of_a_key() {
        let schema = serde_json::to_value(Scope::schema()).unwrap();
        assert_eq!(schema["enum"], json!(["admin", "manage", "read", "upload"]));
    }
}
