//! The clients of the matrix: one with each kind of key.

use anyhow::{Result, ensure};
use carga_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::requests::with_secret_of;
use super::super::{ADMIN, get, key_of, make, request, text};
use super::SCOPES;
use crate::app::{App, TIMEOUT};

/// Who makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A client whose every call is refused with 401 and this code.
    Unknown(&'static str),
    /// A key of the tenant that has sent no upload.
    OfTenant,
    /// A token of the tenant that is limited to another dataset.
    ForOtherDataset,
    OfOtherTenant,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) key: Option<String>,
    pub(super) kind: Kind,
    pub(super) scopes: &'static [&'static str],
}

pub(super) async fn clients(app: &App) -> Result<Vec<Client>> {
    const ALL_BUT_ADMIN: &[&str] = &["manage", "read", "upload"];
    let client = |name: &'static str, key: String, kind, scopes| Client {
        name,
        key: Some(key),
        kind,
        scopes,
    };
    let mut clients = vec![Client {
        name: "no key",
        key: None,
        kind: Kind::Unknown("missing_key"),
        scopes: &[],
    }];
    for (name, key) in unknown(app).await? {
        clients.push(client(name, key, Kind::Unknown("invalid_key"), &[]));
    }
    for (index, scope) in SCOPES.iter().enumerate() {
        let key = key_of(app, "acme", &[*scope]).await?;
        let alone = &SCOPES[index..=index];
        clients.push(client(scope, key, Kind::OfTenant, alone));
    }
    let key = key_of(app, "acme", &["upload"]).await?;
    let token = token(app, &key, &json!({ "dataset": "stock" })).await?;
    let name = "a token of another dataset";
    clients.push(client(name, token, Kind::ForOtherDataset, &["upload"]));
    for (name, scopes) in [
        ("a key of another tenant", ALL_BUT_ADMIN),
        ("an admin of another tenant", SCOPES),
    ] {
        let key = key_of(app, "globex", scopes).await?;
        clients.push(client(name, key, Kind::OfOtherTenant, scopes));
    }
    Ok(clients)
}

/// Texts that are not valid keys, or no longer valid ones. The keys had every scope.
async fn unknown(app: &App) -> Result<Vec<(&'static str, String)>> {
    let every =
        |end: Option<String>| json!({ "tenant": "acme", "scopes": SCOPES, "expires_at": end });
    let revoked = make(app, &every(None)).await?;
    let path = format!("/keys/{}", text(&revoked, "id")?);
    let revoke = request(app, Method::DELETE, &path, Some(ADMIN)).send();
    ensure!(revoke.await?.status() == 200);
    let [one, other] = [
        text(&make(app, &every(None)).await?, "key")?,
        text(&make(app, &every(None)).await?, "key")?,
    ];
    let short = token(app, &one, &json!({ "expires_in": 1 })).await?;
    // Databases of the distributed mode may be slow, and a key must end in the future.
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4);
    let expired = make(app, &every(Some(end.to_string()))).await?;
    let expired = text(&expired, "key")?;
    for ending in [&short, &expired] {
        let refused = async || {
            let answer = get(app, "/uploads", Some(ending)).await.ok()?;
            (answer.status() == 401).then_some(())
        };
        eventually(TIMEOUT, "the key to end", refused).await?;
    }
    Ok(vec![
        ("a malformed key", "x".to_owned()),
        ("a wrong secret", with_secret_of(&one, &other)?),
        ("a revoked key", text(&revoked, "key")?),
        ("an expired key", expired),
        ("an expired token", short),
    ])
}

async fn token(app: &App, key: &str, fields: &Value) -> Result<String> {
    let post = request(app, Method::POST, "/tokens", Some(key));
    let answer = post.json(fields).send().await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    text(&answer.json().await?, "token")
}
