//! The imported files: real flights, and three generated shapes that are identical in every run.

mod writing;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;

use anyhow::{Context, Result};
use carga_testkit::target_dir;
use serde::{Deserialize, Serialize};

/// The shape of a file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Ten short columns.
    Narrow,
    /// Every flight that left New York City in 2013, repeated: 19 columns.
    Flights,
    /// Fifty columns.
    Wide,
    /// Quoted text with newlines, delimiters and doubled quotes.
    Quoted,
}

/// The approximate number of rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Size {
    #[value(name = "10k")]
    TenThousand,
    #[value(name = "100k")]
    HundredThousand,
    /// For the flights, three copies of the whole year: 1,010,328 rows.
    #[value(name = "1m")]
    Million,
    /// For the flights, thirty copies of the whole year.
    #[value(name = "10m")]
    TenMillion,
}

/// Which rows of its shape a file has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Variant {
    Plain,
    /// The rows of `Plain`, with their numbers in a first column.
    Keyed,
    /// The numbers of `Keyed`, with other values in each row.
    Earlier,
}

/// The column with the numbers of the rows.
pub(crate) const KEY: &str = "row_id";

const FLIGHTS_ROWS: u64 = 336_776;

impl Size {
    fn rows(self, shape: Shape) -> u64 {
        match (self, shape) {
            (Self::TenThousand, _) => 10_000,
            (Self::HundredThousand, _) => 100_000,
            (Self::Million, Shape::Flights) => 3 * FLIGHTS_ROWS,
            (Self::Million, _) => 1_000_000,
            (Self::TenMillion, Shape::Flights) => 30 * FLIGHTS_ROWS,
            (Self::TenMillion, _) => 10_000_000,
        }
    }
}

/// A CSV file, and the columns of a table for it.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) shape: Shape,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
    /// Column names with their Postgres types.
    pub(crate) columns: Vec<(String, &'static str)>,
}

impl DataFile {
    /// Generates the file unless it exists.
    pub(crate) fn make(shape: Shape, size: Size) -> Result<Self> {
        let rows = size.rows(shape);
        Self::of_rows(shape, Variant::Plain, rows)
    }

    /// The path of the file's rows in COPY's text format, for the landing table; see
    /// [`encode`](crate::arms::encode).
    pub(crate) fn encoded(&self) -> PathBuf {
        self.path.with_extension("copy")
    }

    /// The path of the file's rows in COPY's binary format, for a table with the columns and types
    /// of the file; see [`encode_binary`](crate::arms::encode_binary).
    pub(crate) fn binary(&self) -> PathBuf {
        self.path.with_extension("binary")
    }

    /// A file with the same rows and their numbers. The numbers are the key, because rows may be
    /// equal.
    pub(crate) fn keyed(&self) -> Result<Self> {
        Self::of_rows(self.shape, Variant::Keyed, self.rows)
    }

    /// A file with the first half of the keys of [`keyed`](Self::keyed), and other values.
    pub(crate) fn earlier_half(&self) -> Result<Self> {
        Self::of_rows(self.shape, Variant::Earlier, self.rows / 2)
    }

    /// The file with the flights of the whole year, without repetition.
    pub(crate) fn flights_once() -> Result<Self> {
        Self::of_rows(Shape::Flights, Variant::Plain, FLIGHTS_ROWS)
    }

    fn of_rows(shape: Shape, variant: Variant, rows: u64) -> Result<Self> {
        let name = serde_json::to_value(shape)?;
        let name = name.as_str().unwrap_or_default();
        let dir = directory()?;
        let suffix = match variant {
            Variant::Plain => "",
            Variant::Keyed => "-keyed",
            Variant::Earlier => "-earlier",
        };
        let path = dir.join(format!("{name}-{rows}{suffix}.csv"));
        if !path.exists() {
            eprintln!("generating {}", path.display());
            let draft = path.with_extension("draft");
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&draft)?);
            writing::write(&mut file, shape, variant, rows)?;
            file.into_inner()?.sync_all()?;
            fs::rename(&draft, &path)?;
        }
        let bytes = fs::metadata(&path)?.len();
        Ok(Self {
            shape,
            rows,
            bytes,
            path,
            columns: columns(shape, variant),
        })
    }

    /// The text that stands for a missing value.
    pub(crate) fn null(&self) -> &'static str {
        match self.shape {
            Shape::Flights => "NA",
            _ => "",
        }
    }
}

/// The directory of everything that later runs reuse.
pub(crate) fn directory() -> Result<PathBuf> {
    let dir = target_dir().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

const NARROW_COLUMNS: &[(&str, &str)] = &[
    ("id", "integer"),
    ("code", "text"),
    ("active", "boolean"),
    ("price", "numeric"),
    ("quantity", "integer"),
    ("day", "date"),
    ("city", "text"),
    ("status", "text"),
    ("rate", "float8"),
    ("note", "text"),
];

const FLIGHTS_COLUMNS: &[(&str, &str)] = &[
    ("year", "integer"),
    ("month", "integer"),
    ("day", "integer"),
    ("dep_time", "integer"),
    ("sched_dep_time", "integer"),
    ("dep_delay", "integer"),
    ("arr_time", "integer"),
    ("sched_arr_time", "integer"),
    ("arr_delay", "integer"),
    ("carrier", "text"),
    ("flight", "integer"),
    ("tailnum", "text"),
    ("origin", "text"),
    ("dest", "text"),
    ("air_time", "integer"),
    ("distance", "integer"),
    ("hour", "integer"),
    ("minute", "integer"),
    ("time_hour", "timestamptz"),
];

const QUOTED_COLUMNS: &[(&str, &str)] = &[
    ("id", "integer"),
    ("author", "text"),
    ("day", "date"),
    ("title", "text"),
    ("body", "text"),
    ("reply", "text"),
];

fn columns(shape: Shape, variant: Variant) -> Vec<(String, &'static str)> {
    let key: &[_] = match variant {
        Variant::Plain => &[],
        Variant::Keyed | Variant::Earlier => &[(KEY, "integer")],
    };
    let columns: &[_] = match shape {
        Shape::Narrow => NARROW_COLUMNS,
        Shape::Flights => FLIGHTS_COLUMNS,
        Shape::Quoted => QUOTED_COLUMNS,
        Shape::Wide => &[],
    };
    let named = key.iter().chain(columns);
    let named = named.map(|(name, kind)| ((*name).to_owned(), *kind));
    match shape {
        Shape::Wide => named.chain(wide_columns()).collect(),
        _ => named.collect(),
    }
}

fn wide_columns() -> impl Iterator<Item = (String, &'static str)> {
    let columns = (1..).zip(wide_types());
    columns.map(|(number, kind)| (format!("column_{number:02}"), kind))
}

fn wide_types() -> impl Iterator<Item = &'static str> {
    (1..=50).map(|number| match number % 3 {
        0 => "integer",
        1 => "text",
        _ => "numeric",
    })
}
