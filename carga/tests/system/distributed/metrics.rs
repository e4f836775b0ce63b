//! Metrics of servers that are away, and of dead letters.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_common::batch::{BatchId, EncodedBatch};
use carga_common::queue::BatchQueue;
use carga_common::upload::UploadKey;
use carga_testkit::{Redis, Scope, eventually};
use uuid::Uuid;

use super::dead_letters::queue;
use crate::app::{App, TIMEOUT};
use crate::metrics::{OWN_LISTENER, metrics_url, scrape, scrape_all};

#[tokio::test]
async fn a_server_that_is_away_is_shown_as_degraded() -> Result<()> {
    let mut redis = Redis::start().await?;
    let scope = Scope::new().await?.with_redis(&redis);
    let app = App::start(scope.with(OWN_LISTENER.0, OWN_LISTENER.1), 1).await?;
    let is_degraded = async |url: &str, dependency: &str| -> Result<bool> {
        let series = format!("carga_dependency_degraded{{dependency=\"{dependency}\"}}");
        Ok(scrape(&app, url).await?.get(&series) == Some(&1.0))
    };
    for program in [&app.api, &app.workers[0]] {
        ensure!(!is_degraded(&metrics_url(program)?, "progress").await?);
    }
    redis.kill()?;
    for program in [&app.api, &app.workers[0]] {
        let url = metrics_url(program)?;
        let noticed = async || is_degraded(&url, "progress").await.unwrap_or_default();
        eventually(TIMEOUT, "the metrics to show that Redis is away", noticed).await?;
        ensure!(!is_degraded(&url, "store").await?);
        ensure!(!is_degraded(&url, "queue").await?);
    }
    redis.restart().await?;
    let url = metrics_url(&app.api)?;
    let is_back = async || is_degraded(&url, "progress").await.is_ok_and(|away| !away);
    eventually(TIMEOUT, "the metrics to show that Redis is back", is_back).await?;
    app.close().await
}

#[tokio::test]
async fn a_dead_letter_is_counted_and_shown() -> Result<()> {
    let scope = Scope::new().await?;
    let app = App::start(scope.with(OWN_LISTENER.0, OWN_LISTENER.1), 1).await?;
    let queue = queue(&app).await?;
    let batch = EncodedBatch {
        id: BatchId {
            upload: UploadKey::first(Uuid::now_v7().into()),
            seq: 1,
        },
        rows: 1,
        body: Bytes::from_static(b"this is no JSON"),
    };
    queue.publisher().publish(&batch).await?;
    let is_shown = async || {
        let found = scrape_all(&app).await.unwrap_or_default();
        let dead = found.get("carga_worker_batches_total{outcome=\"dead\"}");
        // The API and the worker both show the dead letters of the store.
        dead == Some(&1.0) && found.get("carga_dead_letters") == Some(&2.0)
    };
    eventually(
        Duration::from_secs(60),
        "the dead letter to be shown",
        is_shown,
    )
    .await?;
    queue.close().await;
    app.close().await
}
