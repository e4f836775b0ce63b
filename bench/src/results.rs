//! What was measured, as `bench/results.json` keeps it and the chart is drawn from.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use carga_testkit::repository;
use serde::{Deserialize, Serialize};

use crate::arms::Arm;
use crate::data::Shape;
use crate::rig::ByProcess;

/// Each part is replaced when it is measured again. All are of one machine, the same versions and one day.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    #[serde(default)]
    pub(crate) comparisons: Vec<Comparison>,
    #[serde(default)]
    pub(crate) scaling: Vec<Scaling>,
    #[serde(default)]
    pub(crate) flat: Vec<Flat>,
    #[serde(default)]
    pub(crate) memory: Vec<Memory>,
}

/// Where and with what.
#[derive(Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    /// Of Carga and of everything that is compared with it or that it runs on.
    pub(crate) versions: Vec<(String, String)>,
}

/// All arms on one file.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Comparison {
    pub(crate) shape: Shape,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) columns: usize,
    pub(crate) arms: Vec<ArmResult>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ArmResult {
    pub(crate) arm: Arm,
    /// Medians of the rounds that count.
    pub(crate) seconds: f64,
    pub(crate) accepted_seconds: Option<f64>,
    /// To \copy into the landing table in the same round.
    pub(crate) ratio: Spread,
    pub(crate) cpu_seconds: ByProcess<f64>,
    pub(crate) peak_mib: ByProcess<f64>,
    /// As they were measured.
    pub(crate) rounds: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let Some(last) = values.len().checked_sub(1) else {
            return Self::default();
        };
        Self {
            least: values[0],
            median: (values[last / 2] + values[last.div_ceil(2)]) / 2.0,
            most: values[last],
        }
    }

    pub(crate) fn rounded(self) -> Self {
        Self {
            least: rounded(self.least),
            median: rounded(self.median),
            most: rounded(self.most),
        }
    }
}

/// Imports of the flights under one condition.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Scaling {
    /// `s3 delay ms`, `workers` or `uploads at once`.
    pub(crate) what: String,
    pub(crate) value: u64,
    pub(crate) rows_per_second: f64,
    /// To the throughput of the first of its kind, in the same round.
    pub(crate) ratio: Spread,
    /// Of uploads at once: how far the first and the last to complete are from their mean.
    pub(crate) unfairness: Option<f64>,
    pub(crate) peak_mib: ByProcess<f64>,
}

/// Imports of files that differ in their length alone.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Flat {
    pub(crate) arm: Arm,
    pub(crate) rows: u64,
    pub(crate) microseconds_per_row: f64,
    /// To the same arm's time per row with a million rows, in the same round.
    #[serde(default)]
    pub(crate) ratio: Spread,
    pub(crate) peak_mib: ByProcess<f64>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Memory {
    pub(crate) what: String,
    pub(crate) bytes: u64,
    /// Of the API beyond what it held before.
    pub(crate) api_growth_mib: f64,
    pub(crate) peak_mib: ByProcess<f64>,
}

impl Results {
    pub(crate) fn path() -> PathBuf {
        repository().join("bench/results.json")
    }

    pub(crate) fn load() -> Result<Self> {
        match fs::read(Self::path()) {
            Ok(json) => serde_json::from_slice(&json).context("bench/results.json"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("bench/results.json"),
        }
    }

    /// Drops what was measured elsewhere, with something else or on another day.
    pub(crate) fn keep_only(&mut self, machine: Machine) {
        if self.machine != machine {
            *self = Self {
                machine,
                ..Self::default()
            };
        }
    }

    /// After each measurement, so that a run that is broken off has not been in vain.
    pub(crate) fn save(&self) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        fs::write(Self::path(), json).context("bench/results.json")
    }
}

/// To as many decimals as a file for people should have.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Spread::of([]).median, 0.0);
    }
}
