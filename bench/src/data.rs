//! The imported files: real flights, and three generated shapes that are identical in every run.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use carga_testkit::{fixtures, target_dir};
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
        Self::of_rows(shape, rows)
    }

    /// The path of the file's rows in COPY's text format, for the landing table; see
    /// [`encode`](crate::arms::encode).
    pub(crate) fn encoded(&self) -> PathBuf {
        self.path.with_extension("copy")
    }

    /// The file with the flights of the whole year, without repetition.
    pub(crate) fn flights_once() -> Result<Self> {
        Self::of_rows(Shape::Flights, FLIGHTS_ROWS)
    }

    fn of_rows(shape: Shape, rows: u64) -> Result<Self> {
        let name = serde_json::to_value(shape)?;
        let name = name.as_str().unwrap_or_default();
        let dir = directory()?;
        let path = dir.join(format!("{name}-{rows}.csv"));
        let columns = columns(shape);
        if !path.exists() {
            eprintln!("generating {}", path.display());
            let draft = path.with_extension("draft");
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&draft)?);
            write(&mut file, shape, rows, &columns)?;
            file.into_inner()?.sync_all()?;
            fs::rename(&draft, &path)?;
        }
        let bytes = fs::metadata(&path)?.len();
        Ok(Self {
            shape,
            rows,
            bytes,
            path,
            columns,
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

fn columns(shape: Shape) -> Vec<(String, &'static str)> {
    let columns = match shape {
        Shape::Narrow => NARROW_COLUMNS,
        Shape::Flights => FLIGHTS_COLUMNS,
        Shape::Quoted => QUOTED_COLUMNS,
        Shape::Wide => return wide_columns(),
    };
    let columns = columns.iter();
    columns
        .map(|(name, kind)| ((*name).to_owned(), *kind))
        .collect()
}

fn wide_columns() -> Vec<(String, &'static str)> {
    let column = |index| {
        let kind = match index % 3 {
            0 => "integer",
            1 => "text",
            _ => "numeric",
        };
        (format!("column_{index:02}"), kind)
    };
    (1..=50).map(column).collect()
}

fn write(file: &mut impl Write, shape: Shape, rows: u64, columns: &[(String, &str)]) -> Result<()> {
    if shape == Shape::Flights {
        return write_flights(file, rows);
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    writeln!(file, "{}", names.join(","))?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for row in 1..=rows {
        match shape {
            Shape::Narrow => write_narrow(file, row, &mut random)?,
            Shape::Wide => write_wide(file, columns, &mut random)?,
            Shape::Quoted => write_quoted(file, row, &mut random)?,
            Shape::Flights => {}
        }
    }
    Ok(())
}

fn write_flights(file: &mut impl Write, rows: u64) -> Result<()> {
    let open = || -> Result<_> {
        Ok(BufReader::with_capacity(
            1 << 20,
            File::open(fixtures::flights()?)?,
        ))
    };
    let mut source = open()?;
    let mut line = Vec::new();
    source.read_until(b'\n', &mut line)?;
    file.write_all(&line)?;
    let mut remaining = rows;
    while remaining > 0 {
        line.clear();
        if source.read_until(b'\n', &mut line)? == 0 {
            source = open()?;
            source.read_until(b'\n', &mut line)?;
            continue;
        }
        file.write_all(&line)?;
        remaining -= 1;
    }
    Ok(())
}

fn write_narrow(file: &mut impl Write, row: u64, random: &mut Random) -> Result<()> {
    writeln!(
        file,
        "{row},{:06X},{},{}.{:02},{},2024-{:02}-{:02},{},{},0.{:04},{}",
        random.below(1 << 24),
        random.below(2) == 1,
        random.below(1000),
        random.below(100),
        random.below(50),
        1 + random.below(12),
        1 + random.below(28),
        random.word(),
        random.word(),
        random.below(10_000),
        random.word(),
    )?;
    Ok(())
}

fn write_wide(
    file: &mut impl Write,
    columns: &[(String, &str)],
    random: &mut Random,
) -> Result<()> {
    for (index, (_, kind)) in columns.iter().enumerate() {
        if index > 0 {
            file.write_all(b",")?;
        }
        match *kind {
            "integer" => write!(file, "{}", random.below(1_000_000))?,
            "text" => file.write_all(random.word().as_bytes())?,
            _ => write!(file, "{}.{:02}", random.below(1000), random.below(100))?,
        }
    }
    file.write_all(b"\n")?;
    Ok(())
}

fn write_quoted(file: &mut impl Write, row: u64, random: &mut Random) -> Result<()> {
    write!(
        file,
        "{row},\"{}, {}\",2024-{:02}-{:02},\"{} \"\"{}\"\" {}\",\"",
        random.word(),
        random.word(),
        1 + random.below(12),
        1 + random.below(28),
        random.word(),
        random.word(),
        random.word(),
    )?;
    write_text(file, 24, random)?;
    file.write_all(b"\",\"")?;
    write_text(file, 12, random)?;
    file.write_all(b"\"\n")?;
    Ok(())
}

/// Writes words, with a newline after about every eighth.
fn write_text(file: &mut impl Write, words: u64, random: &mut Random) -> Result<()> {
    for word in 0..words {
        let separator = match (word, random.below(8)) {
            (0, _) => "",
            (_, 0) => ",\n",
            _ => " ",
        };
        file.write_all(separator.as_bytes())?;
        file.write_all(random.word().as_bytes())?;
    }
    Ok(())
}

/// xorshift64 (Marsaglia, "Xorshift RNGs", 2003), which generates the same files on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 16] = [
            "amber", "bay", "cedar", "delta", "ember", "fjord", "grove", "harbour", "isle",
            "juniper", "kelp", "lagoon", "meadow", "north", "orchard", "Zürich",
        ];
        WORDS[self.below(WORDS.len() as u64) as usize]
    }
}
