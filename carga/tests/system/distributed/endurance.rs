//! Long scenarios, which run on request only:
//! `make test ARGS='--test system -- --ignored endurance'`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Rabbit, Scope, eventually};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use uuid::Uuid;

use crate::app::App;
use crate::files::{FLIGHTS_ROWS, flights, paced};

/// How often the broker is killed: `CARGA_TEST_KILLS`, or 100 times.
fn kills() -> Result<u32> {
    match std::env::var("CARGA_TEST_KILLS") {
        Ok(kills) => kills.parse().context("CARGA_TEST_KILLS"),
        Err(_) => Ok(100),
    }
}

/// After each kill, every worker consumes again and settles its deliveries: uploads go on within a
/// minute, and every accepted one completes.
#[tokio::test]
#[ignore = "takes 20 minutes"]
async fn four_workers_outlive_a_hundred_kills_of_the_broker() -> Result<()> {
    const WORKERS: u32 = 4;
    const SETTLED_WITHIN: Duration = Duration::from_secs(60);
    let mut rabbit = Rabbit::start().await?;
    // On a busy machine a broker may need more than a minute to start, and then an upload would
    // rightly be refused.
    let scope = Scope::new().await?.with_rabbit(&rabbit);
    let scope = scope.with("CARGA_PUBLISH_DEADLINE_SECS", "600");
    let app = App::start(scope, WORKERS as usize).await?;
    let env = app.harness.env();
    let file = flights().await?;
    for kill in 1..=kills()? {
        let id = Uuid::now_v7();
        let sending = app.start_sending(id, paced(file.clone(), 15_000_000));
        // Each kill comes at another moment.
        app.wait_for_more_batches(id, i64::from(kill * 37 % 250))
            .await?;
        rabbit.kill()?;
        rabbit.restart().await?;
        ensure!(sending.await??.status() == 202, "kill {kill}");
        let completed = app.expect_completed(id, FLIGHTS_ROWS);
        let completed = tokio::time::timeout(SETTLED_WITHIN, completed).await;
        completed.with_context(|| format!("kill {kill}: not settled in time"))??;
        let all_consume = async || {
            let consuming = consumers(&env["AMQP_URL"], &env["CARGA_QUEUE"]).await;
            consuming.is_ok_and(|consumers| consumers == WORKERS)
        };
        eventually(SETTLED_WITHIN, "all workers to consume", all_consume).await?;
        if kill % 10 == 0 {
            eprintln!("{kill} kills");
        }
    }
    app.close().await
}

/// How many workers consume batches now.
async fn consumers(amqp_url: &str, queue: &str) -> Result<u32> {
    let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let queue = format!("{queue}.batches");
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    let consumers = declared.await?.consumer_count();
    connection.close(200, "done".into()).await?;
    Ok(consumers)
}
