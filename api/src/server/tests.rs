use carga_common::backends::Access;
use carga_common::settings::Mode;
use tempfile::TempDir;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_server_connects_to_the_redis_of_its_limits_before_it_serves() {
    let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", redis.local_addr().unwrap());
    let directory = TempDir::new().unwrap();
    let settings = Settings::read(Mode::Embedded, &|name| {
        let value = match name {
            "CARGA_DATA_DIR" => directory.path().to_str().unwrap(),
            "CARGA_AUTH" => "on",
            "CARGA_ADMIN_KEY" => "an-admin-key-of-more-than-32-characters",
            "CARGA_LISTEN" => "127.0.0.1:0",
            "REDIS_URL" => &url,
            _ => return None,
        };
        Some(value.to_owned())
    });
    let settings = settings.unwrap();
    let authentication = settings.authentication().unwrap();
    let backends = Backends::connect(&settings.ports, "test", Access::Exclusive).await;
    let stop = CancellationToken::new();
    let bound = Server::bind(
        &settings,
        &authentication,
        Transport::Plain,
        None,
        backends.unwrap(),
        stop,
    );
    // This Redis hangs up, and the server starts all the same.
    let accepted = async { drop(redis.accept().await.unwrap()) };
    let both = async { tokio::join!(bound, accepted) };
    let (bound, ()) = tokio::time::timeout(DEADLINE, both).await.unwrap();
    assert!(bound.is_ok());
}
