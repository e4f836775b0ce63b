use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limiter::Quota;

fn quota(requests: u32, window: Duration) -> Quota {
    Quota::new(NonZeroU32::new(requests).unwrap(), window)
}

fn bucket(name: impl Into<String>, quota: Quota) -> Bucket {
    Bucket {
        name: name.into(),
        quota,
    }
}

const SECOND: Duration = Duration::from_secs(1);
const SECOND_US: u64 = 1_000_000;

#[test]
fn a_full_bucket_admits_its_quota_at_once_and_then_the_rate() {
    let limiter = LocalLimiter::new();
    let bucket = [bucket("key:a", quota(10, SECOND))];
    for left in (0..10).rev() {
        let decision = limiter.take_at(5, &bucket);
        assert!(decision.admitted);
        assert_eq!(decision.standings[0].remaining, left);
    }
    let refused = limiter.take_at(5, &bucket);
    assert!(!refused.admitted);
    let standing = refused.standings[0];
    assert_eq!(standing.remaining, 0);
    assert_eq!(standing.full_in, SECOND);
    assert_eq!(standing.wait, SECOND / 10);
    assert!(!limiter.take_at(5 + 99_999, &bucket).admitted);
    assert!(limiter.take_at(5 + 100_000, &bucket).admitted);
    assert!(!limiter.take_at(5 + 100_000, &bucket).admitted);
    // After a window without requests, the bucket is full.
    let decision = limiter.take_at(5 + 2 * SECOND_US, &bucket);
    assert_eq!(decision.standings[0].remaining, 9);
    assert_eq!(decision.standings[0].wait, Duration::ZERO);
}

#[test]
fn a_refused_request_takes_from_no_bucket() {
    let limiter = LocalLimiter::new();
    let (many, few) = (quota(10, SECOND), quota(1, SECOND));
    let both = [bucket("many", many), bucket("few", few)];
    assert!(limiter.take_at(0, &both).admitted);
    for _ in 0..20 {
        let refused = limiter.take_at(0, &both);
        assert!(!refused.admitted);
        assert_eq!(refused.standings[0].remaining, 9);
        assert_eq!(refused.standings[0].wait, Duration::ZERO);
        assert_eq!(refused.standings[1].wait, SECOND);
    }
    assert_eq!(limiter.take_at(0, &both[..1]).standings[0].remaining, 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whenever the requests arrive, a bucket admits in each span of time at most its quota and the
    /// requests that come back in this time.
    #[test]
    fn no_span_of_time_admits_more_than_the_quota_and_the_rate(
        requests in 1..50u32,
        window_ms in 1..100_000u64,
        pauses_us in prop::collection::vec(prop_oneof![Just(0), 0..2_000_000u64], 1..400),
    ) {
        let quota = quota(requests, Duration::from_millis(window_ms));
        let bucket = [bucket("key:a", quota)];
        let limiter = LocalLimiter::new();
        let (mut now_us, mut admitted) = (0, VecDeque::new());
        for pause_us in pauses_us {
            now_us += pause_us;
            if limiter.take_at(now_us, &bucket).admitted {
                admitted.push_back(now_us);
            }
        }
        while let Some(first) = admitted.pop_front() {
            for (later, at) in admitted.iter().enumerate() {
                let span_us = at - first;
                let allowed = u64::from(requests) + span_us * u64::from(requests) / (window_ms * 1000);
                prop_assert!(later as u64 + 2 <= allowed, "{} in {span_us} µs", later + 2);
            }
        }
    }

    #[test]
    fn a_client_below_the_rate_is_never_refused(
        requests in 1..1000u32,
        window_ms in 1..100_000u64,
        jitters_us in prop::collection::vec(0..10_000u64, 1..500),
    ) {
        let quota = quota(requests, Duration::from_millis(window_ms));
        let bucket = [bucket("key:a", quota)];
        let limiter = LocalLimiter::new();
        let mut now_us = 0;
        for jitter_us in jitters_us {
            prop_assert!(limiter.take_at(now_us, &bucket).admitted);
            now_us += (window_ms * 1000).div_ceil(requests.into()) + jitter_us;
        }
    }
}

#[test]
fn the_table_stays_at_four_mebibytes_after_a_million_clients() {
    let limiter = LocalLimiter::new();
    // The table has no other memory than these entries.
    assert_eq!(size_of::<Table>(), size_of::<Box<[[Entry; WAYS]]>>());
    let bytes = |limiter: &LocalLimiter| size_of_val(&*lock(&limiter.table).0);
    assert_eq!(bytes(&limiter), 4 << 20);
    let minute = quota(1000, Duration::from_secs(60));
    for number in 0..1_000_000_u64 {
        limiter.take_at(number, &[bucket(format!("address:{number}"), minute)]);
    }
    assert_eq!(bytes(&limiter), 4 << 20);
    // The addresses are in the table: nearly all of its entries are in use.
    let table = lock(&limiter.table);
    let in_use = table
        .0
        .iter()
        .flatten()
        .filter(|entry| entry.full_at_us > 0);
    assert!(in_use.count() > WAYS * SETS * 99 / 100);
}

#[test]
fn a_request_that_is_given_back_can_be_taken_again_and_never_exceeds_the_quota() {
    let limiter = LocalLimiter::new();
    let few = [bucket("few", quota(2, Duration::from_secs(3600)))];
    for _ in 0..10 {
        assert!(limiter.take_now(&few).admitted);
        limiter.give_back(&few[0]);
    }
    for _ in 0..10 {
        limiter.give_back(&few[0]);
    }
    for expected in [true, true, false] {
        assert_eq!(limiter.take_now(&few).admitted, expected);
    }
    limiter.give_back(&few[0]);
    for expected in [true, false] {
        assert_eq!(limiter.take_now(&few).admitted, expected);
    }
}

#[test]
fn a_busy_client_stays_limited_while_a_million_others_come() {
    let limiter = LocalLimiter::new();
    let minute = quota(100, Duration::from_secs(60));
    let busy = [bucket("address:busy", minute)];
    for _ in 0..100 {
        assert!(limiter.take_at(0, &busy).admitted);
    }
    // A second in which each of the others sends one request.
    let mut admitted = 0;
    for number in 0..1_000_000_u64 {
        limiter.take_at(number, &[bucket(format!("address:{number}"), minute)]);
        if number % 1000 == 0 && limiter.take_at(number, &busy).admitted {
            admitted += 1;
        }
    }
    // One request comes back in 0.6 s.
    assert_eq!(admitted, 1);
}

#[test]
fn the_bucket_that_is_full_the_soonest_loses_its_entry() {
    let mut table = Table::new();
    let sets = SETS as u64;
    for number in 1..=WAYS as u64 {
        table.set(number * sets, 1000 + number);
    }
    table.set(100 * sets, 5000);
    assert_eq!(table.level_us(sets, 0), 0);
    for number in 2..=WAYS as u64 {
        assert_eq!(table.level_us(number * sets, 0), 1000 + number);
    }
    assert_eq!(table.level_us(100 * sets, 1000), 4000);
    // A bucket keeps its one entry, also with an earlier time.
    table.set(100 * sets, 4000);
    table.set(200 * sets, 6000);
    assert_eq!(table.level_us(100 * sets, 0), 4000);
    assert_eq!(table.level_us(2 * sets, 0), 0);
}
