//! Another program that gets events from the broker.

use anyhow::{Context, Result, ensure};
use carga_testkit::{Rabbit, Scope, eventually};
use lapin::options::{
    BasicAckOptions, BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;
use uuid::Uuid;

use super::{histories, read_on};
use crate::app::{App, TIMEOUT};
use crate::files::csv;
use crate::harness::Harness;

/// The durable queue of the program.
const QUEUE: &str = "program";

/// Binds the queue to the exchange of events, which the program declares as Carga does.
async fn bind(url: &str, exchange: &str, pattern: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let arguments = FieldTable::default;
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, options, arguments())
        .await?;
    channel
        .queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments())
        .await?;
    channel
        .queue_bind(
            QUEUE.into(),
            exchange.into(),
            pattern.into(),
            QueueBindOptions::default(),
            arguments(),
        )
        .await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Takes all events out of the queue, in their order.
async fn receive(url: &str) -> Result<Vec<Value>> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut received = Vec::new();
    let get = async || {
        channel
            .basic_get(QUEUE.into(), BasicGetOptions::default())
            .await
    };
    while let Some(message) = get().await? {
        let event: Value = serde_json::from_slice(&message.data)?;
        let kind = event["type"].as_str().context("no type")?;
        ensure!(message.routing_key.as_str() == format!("default.{kind}"));
        let id = message.properties.message_id().as_ref();
        let id = id.context("no message id")?.as_str();
        ensure!(event["id"] == id, "{id}: {event}");
        message.ack(BasicAckOptions::default()).await?;
        received.push(event);
    }
    connection.close(200, "done".into()).await?;
    Ok(received)
}

/// Polls until the broker has confirmed all events.
async fn wait_until_sent(app: &App) -> Result<()> {
    let Harness::Distributed(scope) = &app.harness else {
        anyhow::bail!("only distributed mode has a broker");
    };
    eventually(TIMEOUT, "all events to be sent", async || {
        let unsent = sqlx::query_scalar("SELECT count(*) FROM upload_events WHERE sent_at IS NULL");
        let unsent: i64 = unsent.fetch_one(&scope.pool()).await.ok()?;
        (unsent == 0).then_some(())
    })
    .await
}

/// Sends a file, again while the broker is away, and waits for the end of its upload.
async fn complete(app: &App) -> Result<Uuid> {
    let sent = eventually(TIMEOUT, "a file to be accepted", async || {
        let id = Uuid::now_v7();
        let answer = app.put(id, csv(20)).await.ok()?;
        (answer.status() == 202).then_some(id)
    });
    let id = sent.await?;
    app.expect_completed(id, 20).await?;
    Ok(id)
}

async fn undo(app: &App, id: Uuid) -> Result<()> {
    let post = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    ensure!(post.send().await?.status() == 202);
    Ok(())
}

#[tokio::test]
async fn a_program_gets_every_event_in_order_although_broker_and_workers_are_killed() -> Result<()>
{
    let mut rabbit = Rabbit::start().await?;
    let url = rabbit.url();
    let scope = Scope::new().await?.with_rabbit(&rabbit);
    let exchange = format!("{}.events", scope.env()["CARGA_QUEUE"]);
    let mut app = App::start(scope, 2).await?;
    bind(&url, &exchange, "#").await?;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(complete(&app).await?);
    }
    rabbit.kill()?;
    app.storing_process().kill9()?;
    // These events wait in the store.
    for id in &ids {
        undo(&app, *id).await?;
    }
    rabbit.restart().await?;
    app.restart_storing_process().await?;
    for _ in 0..6 {
        ids.push(complete(&app).await?);
    }
    wait_until_sent(&app).await?;
    let (listed, _) = read_on(&app, "0", 100).await?;
    let received = receive(&url).await?;
    let missing = listed.iter().find(|event| !received.contains(event));
    ensure!(missing.is_none(), "{missing:?} was not received");
    let (listed, received) = (histories(&listed)?, histories(&received)?);
    ensure!(received == listed, "{received:#?} instead of {listed:#?}");
    for (number, id) in ids.iter().enumerate() {
        let history = &received[&id.to_string()];
        let ends: &[&str] = match number < 6 {
            true => &["receiving", "processing", "completed", "undone"],
            false => &["receiving", "processing", "completed"],
        };
        ensure!(history == ends, "{history:?}");
    }
    app.close().await
}
