//! TLS to every server, with certificates of a private authority.

use anyhow::{Context, Result, ensure};
use carga_testkit::{
    Authority, Binary, Postgres, Rabbit, Redis, Running, S3, Scope, TlsProxy, eventually,
};
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;

/// The settings that lead to the four servers.
const SETTINGS: [&str; 4] = ["DATABASE_URL", "AMQP_URL", "REDIS_URL", "AWS_ENDPOINT_URL"];

/// What the log says of an authority that is not trusted.
const REFUSED: &str = "invalid peer certificate: UnknownIssuer";

/// Four servers with certificates of one authority.
struct Servers {
    postgres: Postgres,
    rabbit: Rabbit,
    redis: Redis,
    s3: S3,
    /// The S3 server has no TLS itself.
    s3_with_tls: TlsProxy,
}

impl Servers {
    async fn start(authority: &Authority) -> Result<Self> {
        let (postgres, rabbit, redis, s3) = tokio::try_join!(
            Postgres::start_with_tls(authority),
            Rabbit::start_with_tls(authority),
            Redis::start_with_tls(authority),
            S3::start(),
        )?;
        Ok(Self {
            s3_with_tls: TlsProxy::start(authority, s3.port()).await?,
            postgres,
            rabbit,
            redis,
            s3,
        })
    }

    /// A scope that reaches all four over TLS and trusts `authority`.
    async fn scope(&self, authority: &Authority) -> Result<Scope> {
        let scope = Scope::new().await?.with_postgres(&self.postgres).await?;
        let scope = scope.with_s3(&self.s3)?;
        let trusted = authority.certificate().display().to_string();
        let database = format!(
            "{}?sslmode=verify-full&sslrootcert={trusted}",
            scope.database_url()
        );
        let endpoint = format!("https://127.0.0.1:{}", self.s3_with_tls.port());
        Ok(scope
            .with("DATABASE_URL", database)
            .with("AMQP_URL", self.rabbit.tls_url()?)
            .with("REDIS_URL", self.redis.tls_url()?)
            .with("AWS_ENDPOINT_URL", endpoint)
            .with("SSL_CERT_FILE", trusted))
    }
}

#[tokio::test]
async fn an_upload_completes_with_tls_to_every_server() -> Result<()> {
    const CONNECTIONS: &str = "SELECT count(*), count(*) FILTER (WHERE ssl)
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name IN ('carga-api', 'carga-worker')";
    let authority = Authority::new()?;
    let servers = Servers::start(&authority).await?;
    let scope = servers.scope(&authority).await?;
    let pool = scope.pool();
    let app = App::start(scope, 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(3000)).await?.status() == 202);
    app.expect_completed(id, 3000).await?;
    let (status, ready) = app.get("/readyz").await?;
    ensure!(status == 200 && ready["status"] == "ready", "{ready}");
    let (all, encrypted): (i64, i64) = sqlx::query_as(CONNECTIONS).fetch_one(&pool).await?;
    ensure!(
        all > 0 && encrypted == all,
        "{encrypted} of {all} connections to Postgres use TLS"
    );
    app.close().await
}

#[tokio::test]
async fn a_certificate_of_an_untrusted_authority_is_refused_with_the_reason() -> Result<()> {
    let authority = Authority::new()?;
    let servers = Servers::start(&authority).await?;
    let other_authority = Authority::new()?;
    let untrusting = servers.scope(&other_authority).await?;
    let plain = Scope::new().await?;
    for setting in SETTINGS {
        let mut env = plain.env();
        for name in [setting, "SSL_CERT_FILE"] {
            let value = untrusting.env().remove(name).context(name)?;
            env.insert(name.to_owned(), value);
        }
        let mut api = Running::spawn(Binary::Api, &env)?.quiet();
        if setting == "REDIS_URL" {
            // The API connects to Redis for each request. On a busy machine, the time limit of a
            // connection may pass before the handshake has failed.
            let url = api.base_url(TIMEOUT).await?;
            let is_refused = async || {
                let answer = reqwest::get(format!("{url}/readyz")).await.ok()?;
                let ready: serde_json::Value = answer.json().await.ok()?;
                (ready["status"] == "degraded" && api.log().contains(REFUSED)).then_some(())
            };
            let refused = eventually(TIMEOUT, "Redis to be refused", is_refused);
            refused.await.context(setting)?;
        }
        api.wait_for_log(REFUSED, TIMEOUT).await.context(setting)?;
    }
    plain.close().await?;
    untrusting.close().await
}
