//! Proposes the definition of a dataset from a whole file, and stores nothing.
//!
//! The file is read once, as an import reads it. `candidates` has the types that are tried, each
//! with the converter of an import. A `tally` counts for one column how many cells fit each of
//! them, and `choice` takes the strictest type that fits. `names` gives the columns names that a
//! dataset accepts, and `distinct` looks for a column that could be a key. The memory does not
//! depend on the number of rows.

mod candidates;
mod choice;
mod distinct;
mod names;
mod tally;
#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use carga_common::dataset::{ColumnDefinition, ColumnType, Definition, MAX_COLUMNS, Mode};
use carga_common::settings::IntakeSettings;
use carga_common::upload::Renamed;
use futures::{Stream, TryStreamExt};
use serde::Serialize;

use self::candidates::Candidates;
use self::choice::{Choice, choose};
use self::distinct::Distinctness;
use self::names::{ColumnName, column_names};
use self::tally::{NULL_WORDS, Tally};
use crate::csv::{CsvReader, Next};
use crate::decompress::Decompressor;
use crate::open::{FileBytes, csv_limits, open};
use crate::options::{OF_DATASETS, Options};
use crate::refusal::Refusal;
use crate::size_limit::SizeLimit;
use crate::source::FileSource;

/// A definition for a file, and what was found in the file.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SuggestedDataset {
    /// A definition that `PUT /datasets/{name}` takes.
    pub dataset: Definition,
    /// The reasons for each column, in the order of the definition.
    pub evidence: Vec<Evidence>,
    /// The number of records that an import would reject without converting them.
    pub rejected: u64,
}

/// Why a column of the definition is as it is.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evidence {
    /// The name in the definition.
    pub column: String,
    /// The type in the definition.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// The number of cells that are values of the type.
    pub fits: u64,
    /// The number of cells that are missing or mean NULL.
    pub nulls: u64,
    /// The first distinct cells that are neither, cut after 100 characters.
    pub does_not_fit: Vec<String>,
    /// The explanation, for people.
    pub why: String,
}

/// Proposes a definition for a local file.
pub async fn suggest_for_file(
    options: &[(String, String)],
    settings: &IntakeSettings,
    bytes: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
) -> Result<SuggestedDataset, Refusal> {
    let options = Options::from_query(options)?;
    let pieces = bytes.map_err(|error| Refusal::unreadable(&error));
    suggest(pieces, &options, settings, SizeLimit::of(settings)).await
}

/// Proposes a definition for a file. The limits of an upload apply.
pub async fn suggest(
    pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    options: &Options,
    settings: &IntakeSettings,
    limit: SizeLimit,
) -> Result<SuggestedDataset, Refusal> {
    check_options(options)?;
    let source = FileSource::new(pieces, limit);
    let mut file = Decompressor::open(source, settings.limits).await?;
    let limits = csv_limits(&settings.limits);
    let (mut reader, dialect) = open(&mut file, options.csv.clone(), limits).await?;
    let mut table = Table::new(reader.columns())?;
    let rejected = read_rows(&mut reader, &mut file, options, &mut table).await?;
    options.policy.check_share(rejected, reader.rows_read())?;
    options.check_sha256(file.source().sha256())?;
    table.suggestion(reader.columns(), &dialect.renamed, rejected)
}

/// Refuses the options of imports into a dataset, because the file is read without one.
fn check_options(options: &Options) -> Result<(), Refusal> {
    let Some(name) = OF_DATASETS.iter().find(|name| options.is_given(name)) else {
        return Ok(());
    };
    let message = format!(
        "a definition is proposed from the file alone, so this request has no option `{name}`; leave it out"
    );
    Err(Refusal::malformed("malformed_option", message))
}

/// Reads the file to its end, and returns the number of rejected records.
async fn read_rows(
    reader: &mut CsvReader,
    file: &mut impl FileBytes,
    options: &Options,
    table: &mut Table,
) -> Result<u64, Refusal> {
    let mut rejected = 0;
    loop {
        match reader.next()? {
            Next::End => return Ok(rejected),
            Next::More => match file.next().await? {
                Some(bytes) => reader.push(&bytes),
                None => reader.end(),
            },
            Next::Row => table.add_row(reader.cells()),
            Next::Rejected(row) => {
                rejected += 1;
                // No report is kept, so CARGA_MAX_REJECTS does not apply.
                options.policy.check_rejected(&row, rejected, u64::MAX)?;
            }
        }
    }
}

/// What is known of the columns of a file.
#[derive(Debug)]
struct Table {
    candidates: Candidates,
    tallies: Vec<Tally>,
    distinctness: Distinctness,
    /// The canonical text of one cell, so that a cell allocates nothing.
    text: String,
}

impl Table {
    fn new(columns: &[String]) -> Result<Self, Refusal> {
        if columns.len() > MAX_COLUMNS {
            let found = columns.len();
            let message =
                format!("a dataset has at most {MAX_COLUMNS} columns, and the file has {found}");
            let refusal = Refusal::unprocessable("too_many_columns", message);
            return Err(refusal.exceeding(MAX_COLUMNS as u64, found as u64));
        }
        let candidates = Candidates::new();
        let tallies = columns.iter().map(|_| Tally::new(&candidates));
        Ok(Self {
            tallies: tallies.collect(),
            distinctness: Distinctness::new(columns),
            candidates,
            text: String::new(),
        })
    }

    /// Adds a row. Cells that it lacks at its end are NULL, like empty ones.
    fn add_row<'a>(&mut self, mut cells: impl Iterator<Item = &'a str>) {
        for (index, tally) in self.tallies.iter_mut().enumerate() {
            let cell = cells.next().unwrap_or_default();
            if tally.add(cell, &self.candidates, &mut self.text) {
                self.distinctness.add(index, cell);
            }
        }
    }

    fn suggestion(
        &self,
        columns: &[String],
        renamed: &[Renamed],
        rejected: u64,
    ) -> Result<SuggestedDataset, Refusal> {
        let choices = self.tallies.iter();
        let choices: Vec<Choice> = choices
            .map(|tally| choose(tally, &self.candidates))
            .collect();
        let null = self.null_words(&choices);
        let has_nulls = |index: usize| self.tallies[index].nulls(&null) > 0;
        let key = self.distinctness.likely_key(has_nulls);
        let names = column_names(columns, renamed);
        let mut dataset = Definition {
            columns: Vec::with_capacity(columns.len()),
            key: Vec::new(),
            mode: Mode::Append,
            null: null.iter().map(|word| (*word).to_owned()).collect(),
            table: None,
        };
        let mut evidence = Vec::with_capacity(columns.len());
        for (index, (name, choice)) in names.into_iter().zip(choices).enumerate() {
            let key = key.as_ref().filter(|(column, _)| *column == index);
            let tally = &self.tallies[index];
            let (column, reasons) = described(tally, name, choice, &null, key.map(|(_, why)| why));
            dataset.columns.push(column);
            evidence.push(reasons);
        }
        check(&dataset)?;
        Ok(SuggestedDataset {
            dataset,
            evidence,
            rejected,
        })
    }

    /// The empty cell, and the words that stand between the values of a column with a type.
    fn null_words(&self, choices: &[Choice]) -> Vec<&'static str> {
        let is_used = |word: &str| {
            let mut columns = self.tallies.iter().zip(choices);
            columns.any(|(tally, choice)| choice.candidate.is_some() && tally.count_of(word) > 0)
        };
        let words = NULL_WORDS.into_iter().filter(|word| is_used(word));
        [""].into_iter().chain(words).collect()
    }
}

/// A column of the definition, and the reasons for it.
fn described(
    tally: &Tally,
    name: ColumnName,
    choice: Choice,
    null: &[&str],
    key: Option<&String>,
) -> (ColumnDefinition, Evidence) {
    let nulls = tally.nulls(null);
    let (fits, does_not_fit) = match choice.candidate {
        Some(candidate) => (tally.fits(candidate), tally.misfits_shown(candidate)),
        None => (tally.cells() - nulls, Vec::new()),
    };
    let mut why = vec![choice.why];
    let words: Vec<String> = null
        .iter()
        .filter(|word| tally.count_of(word) > 0)
        .map(|word| format!("`{word}`"))
        .collect();
    if !words.is_empty() {
        why.push(format!("cells that are {} are NULL", words.join(" or ")));
    }
    why.extend(name.why);
    why.extend(key.cloned());
    let column = ColumnDefinition {
        name: name.name,
        from: name.from,
        required: nulls == 0 && tally.cells() > 0,
        ..choice.column
    };
    let evidence = Evidence {
        column: column.name.clone(),
        kind: column.kind,
        fits,
        nulls,
        does_not_fit,
        why: why.join("; "),
    };
    (column, evidence)
}

/// Checks that a request can declare the definition.
fn check(dataset: &Definition) -> Result<(), Refusal> {
    let json = dataset.to_json().to_string();
    match Definition::from_json(json.as_bytes()) {
        Ok(_) => Ok(()),
        Err(fault) => {
            let message = format!("no definition was found for the columns of the file: {fault}");
            Err(Refusal::unprocessable("no_definition", message))
        }
    }
}
