//! A metric: its name, kind, labels and meaning, and the handles of its series.

use ::metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, with_recorder,
};

/// Needed to make a handle. The recorder ignores it.
const METADATA: Metadata<'static> = Metadata::new("carga", Level::INFO, None);

/// What a metric records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A number that only grows while the process runs.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// How many observations there were up to each of these bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The name in Prometheus's text format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A metric. Its unit is in its name: seconds or bytes, or none for numbers of things.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The name, which begins with `carga_`.
    pub name: &'static str,
    /// What it records.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, in one sentence.
    pub help: &'static str,
}

/// A counter of the table.
pub(super) const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

/// A gauge of the table.
pub(super) const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

/// A histogram of the table, with the bounds of its buckets.
pub(super) const fn histogram(
    name: &'static str,
    buckets: &'static [f64],
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram(buckets),
        labels,
        help,
    }
}

impl Metric {
    /// The counter of a metric without labels.
    pub fn counter(&self) -> Counter {
        self.counter_of::<&str, 0>([])
    }

    /// The gauge of a metric without labels.
    pub fn gauge(&self) -> Gauge {
        self.gauge_of::<&str, 0>([])
    }

    /// The histogram of a metric without labels.
    pub fn histogram(&self) -> Histogram {
        self.histogram_of::<&str, 0>([])
    }

    /// The counter of the series with these values of the labels.
    pub fn counter_of<V: Into<SharedString>, const N: usize>(&self, values: [V; N]) -> Counter {
        let key = self.key(values);
        with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
    }

    /// The gauge of the series with these values of the labels.
    pub fn gauge_of<V: Into<SharedString>, const N: usize>(&self, values: [V; N]) -> Gauge {
        let key = self.key(values);
        with_recorder(|recorder| recorder.register_gauge(&key, &METADATA))
    }

    /// The histogram of the series with these values of the labels.
    pub fn histogram_of<V: Into<SharedString>, const N: usize>(&self, values: [V; N]) -> Histogram {
        let key = self.key(values);
        with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
    }

    fn key<V: Into<SharedString>, const N: usize>(&self, values: [V; N]) -> Key {
        debug_assert_eq!(N, self.labels.len(), "labels of {}", self.name);
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(name, value)| Label::new(*name, value));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}
