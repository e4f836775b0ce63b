use carga_common::upload::UploadId;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn watchdog(watch: &Arc<ProgressWatch>) -> Watchdog {
    Watchdog {
        watch: Arc::clone(watch),
        heartbeat_file: None,
        limits: StuckLimits::default(),
        ends: true,
        stop: CancellationToken::new(),
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn a_worker_ends_after_six_minutes_with_a_batch_in_hand_and_no_move() {
    let watch = Arc::new(ProgressWatch::default());
    let _in_hand = watch.take(None);
    let started = Instant::now();
    let stuck = watchdog(&watch).run().await;
    assert_eq!(stuck.in_hand, 1);
    assert_eq!(started.elapsed().as_secs(), 360);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_not_stuck() {
    let watch = Arc::new(ProgressWatch::default());
    drop(watch.take(None));
    assert!(timeout(HOUR, watchdog(&watch).run()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waits_for_a_server_is_not_stuck() {
    let watch = Arc::new(ProgressWatch::default());
    let in_hand = watch.take(None);
    let waiting = async {
        for _ in 0..60 {
            sleep(secs(60)).await;
            let attempt = async { Err::<(), _>("the server is away") };
            assert!(in_hand.observe(attempt).await.is_err());
        }
    };
    tokio::select! {
        stuck = watchdog(&watch).run() => panic!("{stuck}"),
        () = waiting => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_not_stuck_within_its_limit() {
    let watch = Arc::new(ProgressWatch::default());
    let in_hand = watch.take(None);
    let started = Instant::now();
    let hanging = std::future::pending::<()>();
    tokio::select! {
        stuck = watchdog(&watch).run() => assert_eq!(stuck.in_hand, 1),
        () = in_hand.observe_slow(HOUR, hanging) => panic!("this call never answers"),
    }
    assert!(started.elapsed() >= HOUR + secs(360));
}

#[tokio::test(start_paused = true)]
async fn a_worker_beside_an_api_does_not_end() {
    let watch = Arc::new(ProgressWatch::default());
    let _in_hand = watch.take(None);
    let watchdog = Watchdog {
        ends: false,
        ..watchdog(&watch)
    };
    assert!(timeout(HOUR, watchdog.run()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_file_is_written_from_the_first_connection_while_the_worker_makes_progress() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("alive");
    std::fs::write(&file, "from an earlier process").unwrap();
    let watch = Arc::new(ProgressWatch::default());
    let watchdog = Watchdog {
        heartbeat_file: Some(file.clone()),
        ends: false,
        ..watchdog(&watch)
    };
    let watching = tokio::spawn(watchdog.run());
    sleep(secs(20)).await;
    assert!(!file.exists(), "the consumer has not connected yet");

    watch.record_connection();
    sleep(secs(1)).await;
    assert!(file.exists());

    let in_hand = watch.take(None);
    sleep(secs(320)).await;
    std::fs::remove_file(&file).unwrap();
    sleep(secs(60)).await;
    assert!(!file.exists(), "a stuck worker has written the file");

    drop(in_hand);
    sleep(secs(6)).await;
    assert!(file.exists());
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_moves_does_not_hide_one_that_is_stuck() {
    let watch = Arc::new(ProgressWatch::default());
    let (stuck_upload, moving_upload) = (UploadId::generate(), UploadId::generate());
    let _stuck = watch.take(Some(stuck_upload));
    let moving = watch.take(Some(moving_upload));
    let started = Instant::now();
    let moves = async {
        while watch.in_hand() == 2 {
            moving.observe(sleep(secs(1))).await;
        }
    };
    tokio::select! {
        stuck = watchdog(&watch).run() => assert_eq!(stuck.in_hand, 2),
        () = moves => {}
    }
    assert_eq!(started.elapsed().as_secs(), 360);
    assert_eq!(watch.uploads_in_hand(), [moving_upload]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_its_turn_is_stuck_only_if_no_batch_moves() {
    let watch = Arc::new(ProgressWatch::default());
    let (waiting, moving) = (watch.take(None), watch.take(None));
    let moves = async {
        for _ in 0..60 {
            moving.observe(sleep(secs(60))).await;
        }
    };
    let never = waiting.wait_for(std::future::pending::<()>());
    let started = Instant::now();
    tokio::select! {
        stuck = watchdog(&watch).run() => assert_eq!(stuck.in_hand, 2),
        () = never => {}
        () = async { moves.await; std::future::pending::<()>().await } => {}
    }
    assert!(started.elapsed() >= HOUR + secs(300));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_worker_that_stops_in_order_does_not_end_early() {
    let watch = Arc::new(ProgressWatch::default());
    let _in_hand = watch.take(None);
    let watchdog = watchdog(&watch);
    watchdog.stop.cancel();
    assert!(timeout(HOUR, watchdog.run()).await.is_err());
}
