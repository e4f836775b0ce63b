//! The credentials of S3 come from a profile.

use anyhow::{Result, ensure};
use carga_testkit::Scope;
use tempfile::TempDir;
use uuid::Uuid;

use crate::app::App;
use crate::files::csv;

#[tokio::test]
async fn a_credential_process_gives_access_to_the_archive() -> Result<()> {
    let scope = Scope::new().await?;
    let env = scope.env();
    let keys = serde_json::json!({
        "Version": 1,
        "AccessKeyId": env["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": env["AWS_SECRET_ACCESS_KEY"],
    });
    let directory = TempDir::new()?;
    let answer = directory.path().join("keys.json");
    tokio::fs::write(&answer, keys.to_string()).await?;
    let profiles = directory.path().join("config");
    let profile = format!(
        "[profile carga]\ncredential_process = cat {}\n",
        answer.display()
    );
    tokio::fs::write(&profiles, profile).await?;
    let scope = scope
        .with("AWS_ACCESS_KEY_ID", "")
        .with("AWS_SECRET_ACCESS_KEY", "")
        .with("AWS_CONFIG_FILE", profiles.display().to_string())
        .with("AWS_PROFILE", "carga");
    let app = App::start(scope, 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(3000)).await?.status() == 202);
    app.expect_completed(id, 3000).await?;
    app.close().await
}
