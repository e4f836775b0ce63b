//! The refusal of a file whose columns do not match. It names the columns at fault and the remedy.

use std::collections::HashMap;
use std::iter;

use super::nearest::Candidates;
use super::{Matcher, NAME_CHARS, UnknownColumns};
use crate::refusal::Refusal;
use crate::typed::wording::{listed, quoted};

/// The most faults in a message. A file that was meant for another dataset may have a thousand.
const MAX_CLAUSES: usize = 100;

impl Matcher<'_> {
    /// The refusal of the file, if a column is at fault or no column was found.
    pub(super) fn refusal(&self, unknown: UnknownColumns) -> Option<Refusal> {
        let unknown = match unknown {
            UnknownColumns::Error => self.unknown(),
            UnknownColumns::Ignore => Vec::new(),
        };
        let mut lacking = self.missing();
        lacking.retain(|column| self.columns[*column].required);
        let count = unknown.len() + lacking.len() + self.ambiguous.len();
        if count == 0 && self.sources.iter().any(Option::is_some) {
            return None;
        }
        let found = self.names_of_found();
        let clauses = match count {
            0 => vec![self.describe_other_file()],
            _ => self.clauses(&unknown, &lacking, &found),
        };
        let mut message = format!(
            "the columns of the file do not match those of the dataset: {}",
            clauses.join("; ")
        );
        if count > clauses.len() {
            message.push_str(&format!("; and {} more faults", count - clauses.len()));
        }
        let is_new = |file: &usize| !found.contains_key(self.folded_file[*file].as_str());
        let lacks_names = count == 0 || !lacking.is_empty() || unknown.iter().any(is_new);
        message.push_str(self.remedy(lacks_names));
        if !unknown.is_empty() {
            message.push_str("; unknown_columns=ignore leaves out unknown columns");
        }
        Some(Refusal::unprocessable("columns_do_not_match", message))
    }

    /// The advice at the end of the message. A further name in `from` does not help if the only
    /// faults are columns that mean the same column. The number of a column whose name was not used
    /// must not be such a name.
    fn remedy(&self, lacks_names: bool) -> &'static str {
        match (self.file.are_lost, lacks_names) {
            (true, _) => {
                "; the header has more or fewer names than the rows have fields, so its names were not used; correct the header, or name the columns with columns= and header=true"
            }
            (false, true) => {
                "; name the columns with columns= (and header=true if the file has a header), or add the file's names to `from` of the dataset's columns"
            }
            (false, false) => {
                "; name the columns with columns= (and header=true if the file has a header)"
            }
        }
    }

    /// The first [`MAX_CLAUSES`] faults.
    fn clauses(
        &self,
        unknown: &[usize],
        lacking: &[usize],
        found: &HashMap<&str, usize>,
    ) -> Vec<String> {
        let candidates = self.names_of_missing();
        let unknown = unknown.iter();
        let unknown = unknown.map(|file| self.describe_unknown(*file, &candidates, found));
        let files = self.names_of_unknown();
        let lacking = lacking.iter();
        let lacking = lacking.map(|column| self.describe_lacking(*column, &files));
        let ambiguous = self.ambiguous.iter();
        let ambiguous = ambiguous.map(|(column, files)| self.describe_ambiguous(*column, files));
        let clauses = unknown.chain(lacking).chain(ambiguous);
        clauses.take(MAX_CLAUSES).collect()
    }

    /// The fault of a file without any column of the dataset.
    fn describe_other_file(&self) -> String {
        let names = listed(self.file.names.iter().copied(), ", ", NAME_CHARS);
        format!("the file has none of them, but {names}")
    }

    /// The fault of a column of the file that no rule has matched. If its name means a column that
    /// another one fills, the message names both.
    fn describe_unknown(
        &self,
        file: usize,
        candidates: &Candidates<'_>,
        found: &HashMap<&str, usize>,
    ) -> String {
        let (name, folded) = (self.file.names[file], self.folded_file[file].as_str());
        let name = quoted(name, NAME_CHARS);
        if let Some(column) = found.get(folded)
            && let Some(other) = self.sources[*column]
        {
            let other = quoted(self.file.names[other], NAME_CHARS);
            return format!("{other} and {name} both mean {}", self.column(*column));
        }
        let near = did_you_mean(candidates.nearest(folded));
        format!("column {name} of the file is unknown{near}")
    }

    /// The fault of a required column that the file lacks.
    fn describe_lacking(&self, column: usize, files: &Candidates<'_>) -> String {
        let near = did_you_mean(files.nearest(&self.folded_columns[column].name));
        let name = self.column(column);
        format!("column {name} is required and the file has none{near}")
    }

    /// The fault of columns of the file that mean the same column.
    fn describe_ambiguous(&self, column: usize, files: &[usize]) -> String {
        let (column, count) = (self.column(column), files.len());
        let names: Vec<&str> = files.iter().map(|file| self.file.names[*file]).collect();
        let all = if count == 2 { "both" } else { "all" };
        let first = names.first().copied().unwrap_or_default();
        if names.iter().all(|name| *name == first) {
            let name = quoted(first, NAME_CHARS);
            return format!("the file has {count} columns {name}, which {all} mean {column}");
        }
        let names = listed(names, " and ", NAME_CHARS);
        format!("{names} {all} mean {column}")
    }

    fn column(&self, column: usize) -> String {
        quoted(&self.columns[column].name, NAME_CHARS)
    }

    /// The names of the columns that were not found, and then their texts in `from`.
    fn names_of_missing(&self) -> Candidates<'_> {
        let missing = self.missing();
        let names = missing.iter().map(|column| {
            let (given, folded) = (&self.columns[*column], &self.folded_columns[*column]);
            (given.name.as_str(), folded.name.as_str())
        });
        let from = missing.iter().flat_map(|column| {
            let (given, folded) = (&self.columns[*column], &self.folded_columns[*column]);
            let given = given.from.iter().map(String::as_str);
            given.zip(folded.from.iter().map(String::as_str))
        });
        Candidates::new(names.chain(from))
    }

    fn names_of_unknown(&self) -> Candidates<'_> {
        let unknown = self.unknown().into_iter();
        let name = |file: usize| (self.file.names[file], self.folded_file[file].as_str());
        Candidates::new(unknown.map(name))
    }

    /// The columns that were found, by all their folded names.
    fn names_of_found(&self) -> HashMap<&str, usize> {
        let mut found = HashMap::new();
        for (column, names) in self.folded_columns.iter().enumerate() {
            if self.sources[column].is_some() {
                for name in iter::once(&names.name).chain(&names.from) {
                    found.entry(name.as_str()).or_insert(column);
                }
            }
        }
        found
    }
}

fn did_you_mean(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| {
        format!(", did you mean {}?", quoted(name, NAME_CHARS))
    })
}
