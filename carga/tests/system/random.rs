//! Random values that differ in every run.

use proptest::test_runner::{Config, RngSeed, TestRunner};
use uuid::Uuid;

/// A source of random values. Prints the variable with which a failed run can be repeated.
pub(crate) fn random_runner() -> TestRunner {
    let mut config = Config::default();
    if config.rng_seed == RngSeed::Random {
        let (_, seed) = Uuid::new_v4().as_u64_pair();
        config.rng_seed = RngSeed::Fixed(seed);
    }
    println!("PROPTEST_RNG_SEED={} repeats this run", config.rng_seed);
    TestRunner::new(config)
}
