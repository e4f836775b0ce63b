//! The measurements, as stored in `bench/results.json`. The chart is drawn from them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use carga_testkit::repository;
use serde::{Deserialize, Serialize};

use crate::arms::Arm;
use crate::compression::Compression;
use crate::data::Shape;
use crate::rig::ByProcess;

/// The results of one machine, one set of versions and one day. Measuring a part again replaces it.
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
    #[serde(default)]
    pub(crate) exports: Vec<Export>,
}

/// The machine, the versions and the day of a measurement.
#[derive(Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    /// The versions of Carga, of its servers and of the programs that it is compared with.
    pub(crate) versions: Vec<(String, String)>,
}

/// The results of all arms, the ways of importing, on one file.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Comparison {
    pub(crate) shape: Shape,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) columns: usize,
    /// The compression of the archived batches.
    #[serde(default)]
    pub(crate) compression: Compression,
    pub(crate) arms: Vec<ArmResult>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ArmResult {
    pub(crate) arm: Arm,
    /// The median of the counted rounds.
    pub(crate) seconds: f64,
    /// Seconds until the API answered 202, if the arm has an API.
    pub(crate) accepted_seconds: Option<f64>,
    /// The ratio to the time of `\copy` into the landing table in the same round.
    pub(crate) ratio: Spread,
    pub(crate) cpu_seconds: ByProcess<f64>,
    pub(crate) peak_mib: ByProcess<f64>,
    /// The seconds of each counted round.
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

/// The throughput of the flights under one condition.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Scaling {
    /// `s3 delay ms`, `workers` or `uploads at once`.
    pub(crate) what: String,
    pub(crate) value: u64,
    pub(crate) rows_per_second: f64,
    /// The ratio to the throughput of the first condition with the same `what`, in the same round.
    pub(crate) ratio: Spread,
    /// For concurrent uploads, the largest difference between a completion time and the mean
    /// completion time, as a share of that mean.
    pub(crate) unfairness: Option<f64>,
    pub(crate) peak_mib: ByProcess<f64>,
}

/// One arm's imports of a file with this number of rows. The files differ only in this number.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Flat {
    pub(crate) arm: Arm,
    pub(crate) rows: u64,
    pub(crate) microseconds_per_row: f64,
    /// The ratio to the same arm's time per row with a million rows, in the same round.
    #[serde(default)]
    pub(crate) ratio: Spread,
    pub(crate) peak_mib: ByProcess<f64>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Memory {
    pub(crate) what: String,
    pub(crate) bytes: u64,
    /// The growth of the API's peak memory during the uploads.
    pub(crate) api_growth_mib: f64,
    pub(crate) peak_mib: ByProcess<f64>,
}

/// One download of all rows of an upload.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Export {
    pub(crate) format: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) megabytes_per_second: f64,
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

    /// Drops all results if they are from another machine, other versions or another day.
    pub(crate) fn keep_only(&mut self, machine: Machine) {
        if self.machine != machine {
            *self = Self {
                machine,
                ..Self::default()
            };
        }
    }

    /// Called after each measurement, so that an interrupted run keeps its earlier results.
    pub(crate) fn save(&self) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        fs::write(Self::path(), json).context("bench/results.json")
    }
}

/// Rounds to three decimals, which keeps the JSON file readable.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_values_is_the_mean_of_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Spread::of([]).median, 0.0);
    }
}
