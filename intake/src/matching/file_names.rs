//! The names of a file's columns as they are in the file. The reader makes repeated names unique,
//! and gives numbers to columns without a name.

use std::collections::{HashMap, HashSet};

use carga_common::upload::Renamed;

/// The columns of a file.
#[derive(Debug)]
pub(super) struct FileNames<'a> {
    /// The name of each column as the upload has it.
    pub(super) columns: &'a [String],
    /// The name of each column in the file, or its number, such as `column_2`, if it has none.
    pub(super) names: Vec<&'a str>,
    /// Whether the names in the header are not used, because they are more or fewer than the fields
    /// of the rows.
    pub(super) are_lost: bool,
}

impl<'a> FileNames<'a> {
    /// The columns of a file of which some got another name.
    pub(super) fn new(columns: &'a [String], renamed: &'a [Renamed]) -> Self {
        let known: HashSet<&str> = columns.iter().map(String::as_str).collect();
        let mut repeated: HashMap<&str, &'a str> = HashMap::new();
        let mut are_lost = false;
        for renamed in renamed {
            match (&renamed.to, repeated_name(renamed, &known)) {
                (Some(to), Some(name)) => {
                    repeated.insert(to, name);
                }
                _ => are_lost |= is_lost(renamed, &known),
            }
        }
        let names = columns.iter().map(|column| {
            let column = column.as_str();
            repeated.get(column).copied().unwrap_or(column)
        });
        Self {
            columns,
            names: names.collect(),
            are_lost,
        }
    }
}

/// The name that a column repeats, if it got a number for this reason. The first column of that
/// name has kept it.
fn repeated_name<'a>(renamed: &'a Renamed, columns: &HashSet<&str>) -> Option<&'a str> {
    let to = renamed.to.as_deref()?;
    // Blanks around a quoted name are part of the name.
    let mut names = [renamed.from.as_str(), renamed.from.trim()].into_iter();
    names.find(|name| columns.contains(name) && is_numbered(to, name))
}

/// Whether `to` is the name with a number behind it, such as `name_2`.
fn is_numbered(to: &str, name: &str) -> bool {
    let number = to.strip_prefix(name).and_then(|end| end.strip_prefix('_'));
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether the name of a stored column was replaced by a number or left out.
fn is_lost(renamed: &Renamed, columns: &HashSet<&str>) -> bool {
    let name = renamed.from.trim();
    let is_other = |to: &str| to.trim() != name && columns.contains(to);
    !name.is_empty() && renamed.to.as_deref().is_none_or(is_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(column: usize, from: &str, to: Option<&str>) -> Renamed {
        Renamed {
            column,
            from: from.to_owned(),
            to: to.map(str::to_owned),
        }
    }

    /// The names in the file, and whether they are lost.
    fn names(columns: &[&str], renamed: &[Renamed]) -> (Vec<String>, bool) {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let file = FileNames::new(&columns, renamed);
        let names = file.names.into_iter().map(str::to_owned);
        (names.collect(), file.are_lost)
    }

    #[test]
    fn a_repeated_name_is_the_name_in_the_file() {
        let repeated = [
            renamed(3, " x ", Some("x_3")),
            renamed(4, "x", Some("x_4")),
            renamed(5, " y", Some("y")),
        ];
        let (found, are_lost) = names(&["x", "x_2", "x_3", "x_4", "y"], &repeated);
        assert_eq!(found, ["x", "x_2", "x", "x", "y"]);
        assert!(!are_lost);
    }

    #[test]
    fn a_column_without_a_name_keeps_its_number() {
        let numbered = [
            renamed(2, "", Some("column_2_2")),
            renamed(3, " ", Some("column_3")),
            renamed(5, "", None),
        ];
        let columns = ["column_2", "column_2_2", "column_3", "a"];
        let (found, are_lost) = names(&columns, &numbered);
        assert_eq!(found, columns);
        assert!(!are_lost);
    }

    #[test]
    fn names_that_numbers_replace_are_lost() {
        let columns = ["column_1", "column_2"];
        for replaced in [
            renamed(1, "sku", Some("column_1")),
            renamed(2, "column", Some("column_2")),
            renamed(3, "price", None),
        ] {
            let (found, are_lost) = names(&columns, &[replaced]);
            assert_eq!(found, columns);
            assert!(are_lost);
        }
    }
}
