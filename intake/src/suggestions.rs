//! Proposes options with which more of a file would be stored. Each proposal was tried on the
//! beginning of the file.

use serde::Serialize;

use crate::csv::{CsvLimits, CsvOpening, CsvOptions, Next};
use crate::options::Options;

/// How much of a file a trial reads.
pub(crate) const SAMPLE_BYTES: usize = 64 << 10;

/// The most proposals for one file.
const MAX_SUGGESTIONS: usize = 3;

/// How many lines above the header are tried.
const MAX_SKIP: u64 = 10;

/// Options to try, with the reason to propose them.
const VARIATIONS: [(&str, &str, &str); 14] = [
    (
        "names",
        "repair",
        "columns without a name get one, and repeated names get a number",
    ),
    ("header", "false", "the first record is read as a row"),
    (
        "short_rows",
        "pad",
        "rows that lack cells at their end are filled with NULL",
    ),
    ("delimiter", ",", "rows are split at commas"),
    ("delimiter", ";", "rows are split at semicolons"),
    ("delimiter", "tab", "rows are split at tabs"),
    ("delimiter", "|", "rows are split at vertical bars"),
    (
        "escape",
        "\\",
        "a backslash hides a quote inside a quoted field",
    ),
    ("quote", "'", "fields are quoted with apostrophes"),
    ("quote", "none", "quotes are read as text"),
    (
        "encoding",
        "windows-1252",
        "the bytes are read as Windows-1252",
    ),
    (
        "encoding",
        "cp850",
        "the bytes are read as CP850, an encoding of DOS",
    ),
    ("encoding", "macintosh", "the bytes are read as Mac Roman"),
    ("encoding", "utf-8", "the bytes are read as UTF-8"),
];

/// Options that would read the file better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Suggestion {
    /// The query of a request with these options.
    pub query: String,
    /// The same options as names and values.
    pub options: Vec<(String, String)>,
    /// What they change.
    pub why: String,
}

/// The beginning of a file, decompressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) is_whole: bool,
}

/// How much of a file some options read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) stored: u64,
    pub(crate) rejected: u64,
    pub(crate) columns: usize,
    pub(crate) is_refused: bool,
}

impl Trial {
    /// Whether these options read the file clearly better than the present ones: they reject at
    /// most half as many rows, and few of all rows.
    fn is_better_than(self, present: Self) -> bool {
        let share = |trial: Self| trial.rejected * 1000 / (trial.stored + trial.rejected).max(1);
        // Any file can be read as one column.
        let is_table = self.columns >= present.columns.max(2);
        let is_good = !self.is_refused && is_table && self.stored > 0 && share(self) <= 100;
        is_good && (present.is_refused || present.stored == 0 || 2 * share(self) < share(present))
    }
}

/// Proposes options for a file. `present` is the result with the present options, and `skip` the
/// number of lines above the header that were found but not skipped.
pub(crate) fn suggestions(
    sample: Sample<'_>,
    options: &Options,
    limits: CsvLimits,
    present: Trial,
    skip: Option<u64>,
) -> Vec<Suggestion> {
    let mut found = Vec::new();
    if let Some(lines) = skip {
        let why = format!("the header seems to be on line {}", lines + 1);
        found.extend(proposal(options, "skip", &lines.to_string(), &why));
    }
    let is_good = present.rejected * 10 < present.stored && !present.is_refused;
    if is_good {
        return found;
    }
    // The trial may cover less of the file than the preview does.
    let present = trial(sample, options.csv.clone(), limits);
    let lines = (1..=MAX_SKIP).map(|lines| {
        let why = format!("the header is on line {}", lines + 1);
        ("skip", lines.to_string(), why)
    });
    let variations = VARIATIONS
        .iter()
        .map(|(name, value, why)| (*name, (*value).to_owned(), (*why).to_owned()));
    for (name, value, why) in variations.chain(lines) {
        if found.len() >= MAX_SUGGESTIONS {
            break;
        }
        let is_skip_known = name == "skip" && found.iter().any(|it: &Suggestion| it.has("skip"));
        let Some(varied) = options.with(name, &value).filter(|_| !is_skip_known) else {
            continue;
        };
        if trial(sample, varied.csv, limits).is_better_than(present) {
            found.extend(proposal(options, name, &value, &why));
        }
    }
    found
}

impl Suggestion {
    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(given, _)| given == name)
    }
}

fn proposal(options: &Options, name: &str, value: &str, why: &str) -> Option<Suggestion> {
    let varied = options.with(name, value)?;
    let options: Vec<(String, String)> = varied
        .given()
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let mut query = form_urlencoded::Serializer::new(String::new());
    Some(Suggestion {
        query: query.extend_pairs(&options).finish(),
        options,
        why: why.to_owned(),
    })
}

/// Reads the sample with these options.
fn trial(sample: Sample<'_>, options: CsvOptions, limits: CsvLimits) -> Trial {
    let mut trial = Trial {
        stored: 0,
        rejected: 0,
        columns: 0,
        is_refused: true,
    };
    let mut opening = CsvOpening::new(options, limits);
    opening.push(sample.bytes);
    opening.end();
    let Ok(Some(mut reader)) = opening.open() else {
        return trial;
    };
    trial.columns = reader.columns().len();
    let mut is_last_rejected = false;
    loop {
        match reader.next() {
            Ok(Next::Row) => {
                trial.stored += 1;
                is_last_rejected = false;
            }
            Ok(Next::Rejected(_)) => {
                trial.rejected += 1;
                is_last_rejected = true;
            }
            Ok(Next::More) => reader.end(),
            Ok(Next::End) => break,
            Err(_) => return trial,
        }
    }
    // The last record of a part of the file is cut.
    if !sample.is_whole {
        trial.rejected -= u64::from(is_last_rejected);
    }
    trial.is_refused = false;
    trial
}
