//! Two installations, each with its own database, that share the queues of one broker by mistake.

use anyhow::{Result, ensure};
use carga_testkit::Scope;
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;

#[tokio::test]
async fn two_installations_on_one_queue_store_their_own_uploads() -> Result<()> {
    let scope = Scope::new().await?;
    let shared_queue = scope.name().to_owned();
    let mut first = App::start(scope, 1).await?;
    let scope = Scope::new().await?.with("CARGA_QUEUE", shared_queue);
    let mut second = App::start(scope, 0).await?;

    // Only the worker of the first installation runs, so it gets the batch of the second one.
    let foreign = Uuid::now_v7();
    ensure!(second.put(foreign, csv(500)).await?.status() == 202);
    let worker = first.storing_process();
    worker
        .wait_for_log("messages of another installation", TIMEOUT)
        .await?;
    let own = Uuid::now_v7();
    ensure!(first.put(own, csv(500)).await?.status() == 202);
    first.expect_completed(own, 500).await?;

    let worker = first.storing_process();
    worker.terminate()?;
    worker.wait(TIMEOUT).await?;
    second.add_worker().await?;
    let upload = second.expect_completed(foreign, 500).await?;
    ensure!(upload["batches"]["dead"] == 0, "{upload}");
    first.close().await?;
    second.close().await
}
