//! What a validation tells a key that may not read.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    ADMIN, closed_app, declare, key_of, key_with, request, send_accepted, wait_until_ended,
};
use crate::app::{App, KNOWN_DIALECT};
use crate::harness::Mode;

in_both_modes! {
    a_validation_does_not_tell_a_key_without_scope_read_which_values_differ,
}

/// A key that is stored with another price, one with the same price, and a new one.
const FILE: &str = "sku,price\na,2\nb,1\nc,1\nd,x\n";

async fn validate(app: &App, key: &str) -> Result<Value> {
    let path = format!("/uploads/validate?{KNOWN_DIALECT}&dataset=prices");
    let post = request(app, Method::POST, &path, Some(key));
    let answer = post.header("content-type", "text/csv").body(FILE).send();
    let answer = answer.await?;
    let status = answer.status();
    let validation: Value = answer.json().await?;
    ensure!(status == 200, "{status}: {validation}");
    Ok(validation)
}

async fn a_validation_does_not_tell_a_key_without_scope_read_which_values_differ(
    mode: Mode,
) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let definition = json!({
        "columns": [
            { "name": "sku", "type": "text" },
            { "name": "price", "type": "integer" },
        ],
        "key": ["sku"],
        "mode": "update",
    });
    let declared = declare(&app, ADMIN, "prices", &definition).await?;
    ensure!(declared.status() == 201, "{}", declared.text().await?);
    let id = Uuid::now_v7();
    send_accepted(&app, ADMIN, id, "&dataset=prices", "sku,price\na,1\nb,1\n").await?;
    wait_until_ended(&app, ADMIN, id).await?;

    let reader = key_of(&app, "default", &["read", "upload"]).await?;
    let whole = validate(&app, &reader).await?;
    let rows = json!({
        "read": 4, "would_insert": 1, "would_update": 1, "unchanged": 1, "rejected": 1,
    });
    ensure!(whole["rows"] == rows, "{whole}");
    ensure!(whole["changed_columns"] == json!({ "price": 1 }), "{whole}");

    let managing = key_of(&app, "default", &["manage", "upload"]).await?;
    for key in [key_with(&app, "upload").await?, managing] {
        let mut expected = whole.clone();
        expected["rows"]["would_update"] = Value::Null;
        expected["rows"]["unchanged"] = Value::Null;
        expected["changed_columns"] = Value::Null;
        let found = validate(&app, &key).await?;
        ensure!(found == expected, "{found}");
    }
    app.close().await
}
