//! Matches the columns of a file with those of a dataset, before any row is read.
//!
//! A column is found by its exact name, then by an exact text of its `from`, then by its name in
//! another spelling, and then by a text of its `from` in another spelling. In a definition, no name
//! means two columns by the same rule. Nothing is guessed: a file is refused if two of its columns
//! mean the same column by the same rule, or if it has no column of the dataset.

mod file_names;
mod nearest;
mod refusing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::slice;

use carga_common::dataset::{ColumnDefinition, Definition, folded_name};
use carga_common::upload::Renamed;

use self::file_names::FileNames;
use crate::refusal::Refusal;
use crate::typed::wording::cut;

/// The most characters of a name in a message. An answer and a log line must stay short.
const NAME_CHARS: usize = 100;

/// The most names in a line of the log.
const MAX_LOGGED_NAMES: usize = 20;

/// What happens to columns of the file that the dataset does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownColumns {
    /// The file is refused.
    #[default]
    Error,
    /// They are not stored.
    Ignore,
}

/// The columns of a dataset and the columns of a file that they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    /// For each column of the dataset, the index of the file's column; `None` if the file has none.
    pub sources: Vec<Option<usize>>,
    /// The columns of the dataset that the file lacks. Their cells are NULL.
    pub missing: Vec<String>,
    /// The columns of the file that are not stored.
    pub ignored: Vec<String>,
}

/// Matches the columns of a file with those of a dataset. `renamed` has the columns whose names in
/// the file were replaced. The refusal names the columns at fault.
pub fn match_columns(
    definition: &Definition,
    file: &[String],
    renamed: &[Renamed],
    unknown: UnknownColumns,
) -> Result<Matching, Refusal> {
    let mut matcher = Matcher::new(&definition.columns, file, renamed);
    for rule in Rule::IN_ORDER {
        matcher.apply(rule);
    }
    matcher.finish(unknown)
}

impl Matching {
    /// Logs which columns are NULL and which are not stored.
    pub(crate) fn log(&self) {
        let shown = |names: &[String]| -> Vec<String> {
            let names = names.iter().take(MAX_LOGGED_NAMES);
            names
                .map(|name| cut(name, NAME_CHARS).into_owned())
                .collect()
        };
        if !self.missing.is_empty() {
            tracing::warn!(
                count = self.missing.len(),
                columns = ?shown(&self.missing),
                "the file lacks columns of the dataset; their cells are NULL"
            );
        }
        if !self.ignored.is_empty() {
            tracing::warn!(
                count = self.ignored.len(),
                columns = ?shown(&self.ignored),
                "columns of the file are not in the dataset and are not stored (unknown_columns=ignore)"
            );
        }
    }
}

/// How a name in the file means a column. Later rules leave out the columns that are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Name,
    From,
    SpellingOfName,
    SpellingOfFrom,
}

impl Rule {
    const IN_ORDER: [Self; 4] = [
        Self::Name,
        Self::From,
        Self::SpellingOfName,
        Self::SpellingOfFrom,
    ];
}

/// The names of a column of the dataset in their folded form. They are folded once, because a
/// definition may have many.
#[derive(Debug)]
struct FoldedNames {
    name: String,
    from: Vec<String>,
}

impl FoldedNames {
    fn of(column: &ColumnDefinition) -> Self {
        let from = column.from.iter().map(|text| folded_name(text));
        Self {
            name: folded_name(&column.name),
            from: from.collect(),
        }
    }
}

/// The state of the matching between two rules. Columns are named by their indexes.
#[derive(Debug)]
struct Matcher<'a> {
    columns: &'a [ColumnDefinition],
    folded_columns: Vec<FoldedNames>,
    file: FileNames<'a>,
    folded_file: Vec<String>,
    sources: Vec<Option<usize>>,
    /// Which columns of the dataset were found. Some of them were found more than once.
    is_found: Vec<bool>,
    /// Which columns of the file mean a column of the dataset.
    is_known: Vec<bool>,
    /// The columns that were found more than once, each with the columns of the file.
    ambiguous: Vec<(usize, Vec<usize>)>,
}

impl<'a> Matcher<'a> {
    fn new(columns: &'a [ColumnDefinition], file: &'a [String], renamed: &'a [Renamed]) -> Self {
        let file = FileNames::new(file, renamed);
        Self {
            columns,
            folded_columns: columns.iter().map(FoldedNames::of).collect(),
            folded_file: file.names.iter().map(|name| folded_name(name)).collect(),
            sources: vec![None; columns.len()],
            is_found: vec![false; columns.len()],
            is_known: vec![false; file.names.len()],
            ambiguous: Vec::new(),
            file,
        }
    }

    /// Matches the columns that earlier rules have left.
    fn apply(&mut self, rule: Rule) {
        for (column, files) in self.found_by(rule) {
            self.record(column, files);
        }
    }

    /// The columns of the dataset that the rule finds, each with the columns of the file.
    fn found_by(&self, rule: Rule) -> BTreeMap<usize, Vec<usize>> {
        let meanings = self.meanings(rule);
        let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for file in self.unknown() {
            if let Some(column) = meanings.get(self.name_in_file(rule, file)) {
                found.entry(*column).or_default().push(file);
            }
        }
        found
    }

    /// The columns of the dataset that were not found yet, by the names that mean them.
    fn meanings(&self, rule: Rule) -> HashMap<&str, usize> {
        let missing = self.missing().into_iter();
        let meanings = missing.flat_map(|column| {
            let names = self.names(rule, column).iter();
            names.map(move |name| (name.as_str(), column))
        });
        meanings.collect()
    }

    /// The names of a column that the rule compares.
    fn names(&self, rule: Rule, column: usize) -> &[String] {
        let (given, folded) = (&self.columns[column], &self.folded_columns[column]);
        match rule {
            Rule::Name => slice::from_ref(&given.name),
            Rule::From => &given.from,
            Rule::SpellingOfName => slice::from_ref(&folded.name),
            Rule::SpellingOfFrom => &folded.from,
        }
    }

    /// The name of a column of the file in the form that the rule compares.
    fn name_in_file(&self, rule: Rule, file: usize) -> &str {
        match rule {
            Rule::Name | Rule::From => self.file.names[file],
            Rule::SpellingOfName | Rule::SpellingOfFrom => &self.folded_file[file],
        }
    }

    /// Records which columns of the file mean a column.
    fn record(&mut self, column: usize, files: Vec<usize>) {
        self.is_found[column] = true;
        for file in &files {
            self.is_known[*file] = true;
        }
        match files.as_slice() {
            [file] => self.sources[column] = Some(*file),
            _ => self.ambiguous.push((column, files)),
        }
    }

    /// The columns of the dataset that were not found.
    fn missing(&self) -> Vec<usize> {
        positions_of_false(&self.is_found)
    }

    /// The columns of the file that mean no column of the dataset.
    fn unknown(&self) -> Vec<usize> {
        positions_of_false(&self.is_known)
    }

    fn finish(self, unknown: UnknownColumns) -> Result<Matching, Refusal> {
        if let Some(refusal) = self.refusal(unknown) {
            return Err(refusal);
        }
        let missing = self.missing().into_iter();
        let ignored = self.unknown().into_iter();
        Ok(Matching {
            missing: missing
                .map(|column| self.columns[column].name.clone())
                .collect(),
            ignored: ignored
                .map(|file| self.file.columns[file].clone())
                .collect(),
            sources: self.sources,
        })
    }
}

fn positions_of_false(flags: &[bool]) -> Vec<usize> {
    let flags = flags.iter().enumerate();
    flags
        .filter(|(_, flag)| !**flag)
        .map(|(position, _)| position)
        .collect()
}
