//! Each server is private and real, and can be killed and restarted.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carga_testkit::{
    LocalStack, Postgres, Rabbit, Redis, S3, S3Kind, Scope, Services, State, eventually, reap_stale,
};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_killed_postgres_keeps_its_rows() {
    let mut postgres = Postgres::start().await.unwrap();
    postgres.create_database("rows").await.unwrap();
    let url = postgres.url("rows");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("create table kept (n int); insert into kept values (42)")
        .execute(&mut connection)
        .await
        .unwrap();
    // A backend that runs a query must not keep the next postmaster from starting.
    let running_query = tokio::spawn({
        let mut connection = PgConnection::connect(&url).await.unwrap();
        async move {
            sqlx::query("select pg_sleep(600)")
                .execute(&mut connection)
                .await
        }
    });

    postgres.kill().unwrap();
    assert!(running_query.await.unwrap().is_err());
    assert!(!is_listening(postgres.port()));
    postgres.restart().await.unwrap();

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let kept: i32 = sqlx::query_scalar("select n from kept")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, 42);
}

#[tokio::test]
async fn a_stopped_postgres_restarts_on_its_port_and_syncs_to_disk() {
    let mut postgres = Postgres::start().await.unwrap();
    let port = postgres.port();
    postgres.stop().await.unwrap();
    assert!(!is_listening(port));
    postgres.restart().await.unwrap();
    assert_eq!(postgres.port(), port);
    let mut connection = PgConnection::connect(&postgres.url("postgres"))
        .await
        .unwrap();
    let fsync: String = sqlx::query_scalar("show fsync")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(fsync, "on");
}

#[tokio::test]
async fn a_killed_redis_restarts_empty() {
    let mut redis = Redis::start().await.unwrap();
    assert_eq!(redis_command(redis.port(), "SET key value").await, "+OK");
    assert_eq!(redis_command(redis.port(), "EXISTS key").await, ":1");
    redis.kill().unwrap();
    assert!(!is_listening(redis.port()));
    redis.restart().await.unwrap();
    assert_eq!(redis_command(redis.port(), "EXISTS key").await, ":0");
    redis.stop().await.unwrap();
    assert!(!is_listening(redis.port()));
}

#[tokio::test]
async fn a_killed_rabbit_restarts_on_its_port() {
    let mut rabbit = Rabbit::start().await.unwrap();
    rabbit.kill().unwrap();
    assert!(!is_listening(rabbit.port()));
    rabbit.restart().await.unwrap();
    assert!(is_listening(rabbit.port()));
    rabbit.stop().await.unwrap();
    assert!(!is_listening(rabbit.port()));
    rabbit.restart().await.unwrap();
    assert!(is_listening(rabbit.port()));
}

#[tokio::test]
async fn a_killed_s3_server_keeps_its_objects() {
    let mut s3 = S3::start().await.unwrap();
    s3.create_bucket("bucket").unwrap();
    let object = format!("{}/bucket/some/key", s3.access().endpoint);
    signed_request(&s3, "PUT", &object, "content");
    assert_eq!(s3.objects("bucket").unwrap(), ["some/key"]);

    s3.kill().unwrap();
    assert!(!is_listening(s3.port()));
    s3.restart().await.unwrap();
    assert_eq!(signed_request(&s3, "GET", &object, ""), "content");

    s3.stop().await.unwrap();
    assert!(!is_listening(s3.port()));
    s3.restart().await.unwrap();
    assert_eq!(signed_request(&s3, "GET", &object, ""), "content");
    assert_eq!(s3.read("bucket", "some/key").unwrap(), b"content");
}

#[tokio::test]
async fn an_s3_request_without_the_credentials_is_refused() {
    let s3 = S3::start().await.unwrap();
    s3.create_bucket("bucket").unwrap();
    let answer = reqwest::get(format!("{}/bucket?list-type=2", s3.access().endpoint))
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn a_killed_localstack_restarts_on_its_port() {
    let mut localstack = LocalStack::start().await.unwrap();
    let s3 = localstack.access();
    let client = reqwest::Client::new();
    for (path, body) in [("bucket", ""), ("bucket/a%26b", "content")] {
        let answer = client
            .put(format!("{}/{path}", s3.endpoint))
            .body(body)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
    assert_eq!(s3.objects("bucket").await.unwrap(), ["a&b"]);
    assert_eq!(s3.read("bucket", "a&b").await.unwrap(), b"content");

    localstack.kill().unwrap();
    assert!(!is_listening(localstack.port()));
    localstack.restart().await.unwrap();
    localstack.stop().await.unwrap();
    assert!(!is_listening(localstack.port()));
}

#[tokio::test]
async fn dropping_a_handle_stops_its_server() {
    let redis = Redis::start().await.unwrap();
    let port = redis.port();
    drop(redis);
    assert!(!is_listening(port));
}

#[tokio::test]
async fn the_servers_of_a_dead_test_run_are_reaped_and_those_of_a_live_one_are_kept() {
    let live = Redis::start().await.unwrap();
    for server in ["redis", "postgres"] {
        let (mut owner, port) = start_in_another_process(server);
        assert!(is_listening(port));
        owner.kill().unwrap();
        owner.wait().unwrap();
        reap_stale().unwrap();
        // Another test binary that starts now may reap it first.
        eventually(DEADLINE, "the dead run's server to end", async || {
            !is_listening(port)
        })
        .await
        .unwrap();
    }
    assert!(is_listening(live.port()));
}

#[tokio::test]
async fn up_reuses_a_complete_set_and_replaces_an_incomplete_one() {
    let dir = SetDirectory::new("second-up");
    let (first, second) = tokio::join!(
        Services::up(&dir.0, S3Kind::S3sFs),
        Services::up(&dir.0, S3Kind::S3sFs)
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.env(), second.env());
    assert!(first.s3.objects("carga").await.unwrap().is_empty());
    PgConnection::connect(&first.database_url("carga"))
        .await
        .expect("the database carga exists");

    shut_down_redis(&first).await;
    assert!(Services::find(&dir.0).await.is_err());
    let replaced = Services::up(&dir.0, S3Kind::S3sFs).await.unwrap();
    assert_ne!(replaced.env(), first.env());
    assert!(
        !is_listening(first.rabbit_port),
        "the remaining servers of the old set still run"
    );

    Services::down(&dir.0).await.unwrap();
    assert!(!is_listening(replaced.postgres_port));
    assert!(!is_listening(replaced.rabbit_port));
}

#[tokio::test]
async fn services_env_prints_settings_for_a_shell() {
    let dir = SetDirectory::new("settings");
    let state = Services::up(&dir.0, S3Kind::S3sFs).await.unwrap();
    let settings = testkit()
        .args(["services", "env", "--dir"])
        .arg(&dir.0)
        .output()
        .unwrap();
    let script = format!(
        "{}\necho \"$DATABASE_URL $AMQP_URL\"",
        String::from_utf8(settings.stdout).unwrap()
    );
    let shell = Command::new("sh").args(["-c", &script]).output().unwrap();
    let expected = format!("{} {}\n", state.database_url("carga"), state.amqp_url());
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), expected);

    let down = testkit()
        .args(["services", "down", "--dir"])
        .arg(&dir.0)
        .status()
        .unwrap();
    assert!(down.success());
    assert!(!is_listening(state.redis_port));
}

#[tokio::test]
async fn scopes_share_servers_but_no_data() {
    let (one, other) = (Scope::new().await.unwrap(), Scope::new().await.unwrap());
    assert_eq!(one.env()["REDIS_URL"], other.env()["REDIS_URL"]);
    for setting in [
        "DATABASE_URL",
        "CARGA_QUEUE",
        "CARGA_REDIS_PREFIX",
        "ARCHIVE_URL",
    ] {
        assert_ne!(one.env()[setting], other.env()[setting], "{setting}");
    }
    sqlx::query("create table t (n int)")
        .execute(&one.pool())
        .await
        .unwrap();
    assert!(
        sqlx::query("select n from t")
            .execute(&other.pool())
            .await
            .is_err()
    );
    assert!(one.objects().await.unwrap().is_empty());
    one.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn a_scope_can_use_private_servers() {
    let postgres = Postgres::start().await.unwrap();
    let redis = Redis::start().await.unwrap();
    let s3 = S3::start().await.unwrap();
    let scope = Scope::new()
        .await
        .unwrap()
        .with_redis(&redis)
        .with("CARGA_LISTEN", "127.0.0.1:1");
    let scope = scope
        .with_s3(&s3)
        .unwrap()
        .with_postgres(&postgres)
        .await
        .unwrap();
    assert_eq!(scope.env()["REDIS_URL"], redis.url());
    assert_eq!(scope.env()["CARGA_LISTEN"], "127.0.0.1:1");
    assert_eq!(scope.env()["AWS_ENDPOINT_URL"], s3.access().endpoint);
    assert!(scope.objects().await.unwrap().is_empty());
    let port: String = sqlx::query_scalar("show port")
        .fetch_one(&scope.pool())
        .await
        .unwrap();
    assert_eq!(port, postgres.port().to_string());
    scope.close().await.unwrap();
}

/// A directory for a set of services. Dropping it removes the set, even if the test fails.
struct SetDirectory(PathBuf);

impl SetDirectory {
    fn new(name: &str) -> Self {
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("services-{name}")))
    }
}

impl Drop for SetDirectory {
    fn drop(&mut self) {
        let _ = testkit()
            .args(["services", "down", "--dir"])
            .arg(&self.0)
            .status();
    }
}

fn testkit() -> Command {
    Command::new(env!("CARGO_BIN_EXE_carga-testkit"))
}

/// Starts a private server in another process, and returns that process and the server's port.
fn start_in_another_process(server: &str) -> (Child, u16) {
    let mut owner = testkit()
        .args(["run", server])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let (_, address) = url.trim().rsplit_once(':').unwrap();
    let port = address.split('/').next().unwrap().parse().unwrap();
    (owner, port)
}

fn is_listening(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

async fn redis_command(redis_port: u16, command: &str) -> String {
    let mut connection = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, redis_port))
        .await
        .unwrap();
    connection
        .write_all(format!("{command}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        answer.push(connection.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap().trim_end().to_owned()
}

async fn shut_down_redis(set: &State) {
    let mut connection = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, set.redis_port))
        .await
        .unwrap();
    connection.write_all(b"SHUTDOWN NOSAVE\r\n").await.unwrap();
    eventually(DEADLINE, "redis to shut down", async || {
        !is_listening(set.redis_port)
    })
    .await
    .unwrap();
}

/// Sends a request that curl signs like an AWS client.
fn signed_request(s3: &S3, method: &str, url: &str, body: &str) -> String {
    let access = s3.access();
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--request",
        method,
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
    ]);
    curl.args([
        "--user",
        &format!("{}:{}", access.access_key, access.secret_key),
    ]);
    curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
    if !body.is_empty() {
        curl.args(["--data-binary", body]);
    }
    let output = curl.arg(url).output().expect("curl is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
