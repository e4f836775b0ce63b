//! What a client of the tenant `default` sees while another tenant has used the same id. Without
//! authentication every request is of this tenant, so the upload of the other tenant is written
//! into the database. `access/tenants.rs` has two tenants with keys.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::files::{csv, read};
use crate::harness::Mode;

in_both_modes! {
    an_upload_of_another_tenant_does_not_exist,
    an_id_that_another_tenant_has_used_is_the_client_s_own,
    a_failure_names_the_id_that_the_client_chose,
}

/// Records a completed upload of the tenant `acme`, as the first one of the database.
async fn record_foreign(app: &App, id: Uuid) -> Result<()> {
    let postgres = format!(
        "INSERT INTO uploads (id, tenant, status, dialect, columns, finished_at)
         VALUES ('{id}', 'acme', 'completed', '{{}}', '{{a}}', now())"
    );
    let sqlite = format!(
        "INSERT INTO uploads (id, number, tenant, status, dialect, columns, created_at, updated_at, finished_at)
         VALUES ('{id}', 1, 'acme', 'completed', '{{}}', '[\"a\"]', '2026-11-26T00:00:00.000000Z',
                 '2026-11-26T00:00:00.000000Z', '2026-11-26T00:00:00.000000Z')"
    );
    app.harness.execute(&postgres, &sqlite).await
}

async fn an_upload_of_another_tenant_does_not_exist(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::new_v4();
    record_foreign(&app, id).await?;
    for path in ["", "/rows", "/rejected"] {
        let get = app.client.get(format!("{}/uploads/{id}{path}", app.url));
        problem(get.send().await?, 404, "upload_not_found").await?;
    }
    for verb in ["cancel", "undo"] {
        let post = app.client.post(format!("{}/uploads/{id}/{verb}", app.url));
        problem(post.send().await?, 404, "upload_not_found").await?;
    }
    let (_, list) = app.get("/uploads").await?;
    ensure!(list["uploads"] == serde_json::json!([]), "{list}");
    app.close().await
}

async fn an_id_that_another_tenant_has_used_is_the_client_s_own(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::new_v4();
    record_foreign(&app, id).await?;
    let sent = app.put(id, csv(1200)).await?;
    ensure!(sent.status() == 202, "{}", sent.text().await?);
    let location = sent.headers()["location"].to_str()?.to_owned();
    ensure!(location == format!("/uploads/{id}"), "{location}");
    let upload = app.wait_until_ended(id).await?;
    ensure!(upload["status"] == "completed", "{upload}");
    ensure!(upload["id"] == id.to_string() && upload["rows"]["inserted"] == 1200);
    let (_, list) = app.get("/uploads").await?;
    let listed = list["uploads"].as_array().context("no uploads")?;
    ensure!(
        listed.len() == 1 && listed[0]["id"] == id.to_string(),
        "{list}"
    );

    let rows = app.client.get(format!("{}/uploads/{id}/rows", app.url));
    let rows = rows.send().await?;
    let disposition = rows.headers()["content-disposition"].to_str()?.to_owned();
    ensure!(disposition.contains(&id.to_string()), "{disposition}");
    let (_, downloaded) = read(rows.text().await?.as_bytes())?;
    ensure!(downloaded.len() == 1200);
    // The directory in the archive has the id that Carga uses itself.
    let objects = app.harness.objects().await?;
    let foreign = format!("uploads/{id}/");
    ensure!(!objects.is_empty(), "nothing is archived");
    ensure!(
        objects.iter().all(|key| !key.starts_with(&foreign)),
        "{objects:?}"
    );

    problem(app.put(id, csv(5)).await?, 409, "id_used").await?;
    let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    let undone = undo.send().await?;
    ensure!(undone.status() == 202, "{}", undone.text().await?);
    eventually(TIMEOUT, "the rows to be removed", async || {
        let upload = app.upload(id).await.ok().flatten();
        upload.is_some_and(|it| it["status"] == "undone" && it["cleanup_pending"] == false)
    })
    .await?;
    app.close().await
}

async fn a_failure_names_the_id_that_the_client_chose(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::new_v4();
    record_foreign(&app, id).await?;
    let sent = app.put_with(id, KNOWN_DIALECT, "a,b\n1\n2\n").await?;
    let refused = problem(sent, 422, "no_row_fits").await?;
    ensure!(refused["upload"] == id.to_string(), "{refused}");
    let upload = app.upload(id).await?.context("no upload")?;
    ensure!(upload["status"] == "failed", "{upload}");
    let rejected = app.client.get(format!("{}/uploads/{id}/rejected", app.url));
    let rejected = rejected.send().await?.text().await?;
    ensure!(rejected.lines().count() == 3, "{rejected}");
    app.close().await
}
