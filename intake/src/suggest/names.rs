//! Gives the columns of a file names that a dataset accepts. The file's own name goes into `from`,
//! so that an import finds the column.

use std::collections::HashSet;

use carga_common::dataset::{check_column_name, folded_name};
use carga_common::upload::Renamed;

use crate::typed::wording::quoted;

/// The most bytes of the file's name in a new name. It leaves room for a prefix and a number.
const KEPT_BYTES: usize = 48;

/// The most characters of a name in an explanation.
const NAME_CHARS: usize = 100;

/// The name of a column in the definition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ColumnName {
    pub(super) name: String,
    /// The name in the file, if it is another one.
    pub(super) from: Vec<String>,
    /// Why the name is another one, or why an import needs help to find the column.
    pub(super) why: Option<String>,
}

/// The names of all columns. `renamed` has the columns whose names in the file were replaced.
pub(super) fn column_names(columns: &[String], renamed: &[Renamed]) -> Vec<ColumnName> {
    // A new name must not mean another column of the file, so all of their names are taken.
    let mut taken: HashSet<String> = columns.iter().map(|name| folded_name(name)).collect();
    let mut kept = HashSet::new();
    let mut spellings = HashSet::new();
    let mut names = Vec::with_capacity(columns.len());
    for column in columns {
        let fault = match check_column_name(column) {
            Err(fault) => fault.to_string(),
            Ok(()) if kept.insert(folded_name(column)) => {
                names.push(ColumnName {
                    name: column.clone(),
                    from: Vec::new(),
                    why: repetition(column, columns, renamed),
                });
                continue;
            }
            Ok(()) => {
                "another column has the same name but for case, accents, blanks or punctuation"
                    .to_owned()
            }
        };
        let name = free_name(column, &mut taken);
        // A definition takes a text in `from` once, in any spelling.
        let is_findable = !column.trim().is_empty()
            && !column.contains('\0')
            && spellings.insert(folded_name(column));
        let (from, remedy) = match is_findable {
            true => (vec![column.clone()], ""),
            false => (Vec::new(), "; name the column with the option `columns`"),
        };
        let old = quoted(column, NAME_CHARS);
        names.push(ColumnName {
            name,
            from,
            why: Some(format!(
                "the name in the file, {old}, is replaced: {fault}{remedy}"
            )),
        });
    }
    names
}

/// What to do about a column whose name the header repeats. An import of the file finds two columns
/// of the same name.
fn repetition(column: &str, columns: &[String], renamed: &[Renamed]) -> Option<String> {
    let is_this = |renamed: &&Renamed| renamed.to.as_deref() == Some(column);
    let from = renamed.iter().find(is_this)?.from.trim();
    let is_repeated = from != column && columns.iter().any(|other| other == from);
    is_repeated.then(|| {
        let from = quoted(from, NAME_CHARS);
        format!(
            "the header repeats the name {from}, so an import into the dataset needs the option `columns`"
        )
    })
}

/// A name like the one in the file that a dataset accepts and no column has.
fn free_name(name: &str, taken: &mut HashSet<String>) -> String {
    let base = acceptable(name);
    let mut names = (1_u32..).map(|number| match number {
        1 => base.clone(),
        _ => format!("{base}_{number}"),
    });
    let free = names.find(|name| taken.insert(folded_name(name)));
    free.unwrap_or_else(|| base.clone())
}

fn acceptable(name: &str) -> String {
    let mut name = name.replace('\0', "");
    let mut end = KEPT_BYTES.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    match check_column_name(&name) {
        Ok(()) => name,
        Err(_) => format!("file_{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(columns: &[&str], renamed: &[Renamed]) -> Vec<ColumnName> {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        column_names(&columns, renamed)
    }

    #[test]
    fn a_name_that_a_dataset_refuses_is_replaced_and_goes_into_from() {
        let long = "é".repeat(40);
        let columns = ["a", "ctid", "Upload_ID", "_carga_x", long.as_str()];
        let found = names(&columns, &[]);
        let shown: Vec<&str> = found.iter().map(|column| column.name.as_str()).collect();
        let cut = "é".repeat(24);
        let expected = [
            "a",
            "file_ctid",
            "file_Upload_ID",
            "file__carga_x",
            cut.as_str(),
        ];
        assert_eq!(shown, expected);
        assert!(found[0].from.is_empty() && found[0].why.is_none());
        for (column, old) in found.iter().zip(columns).skip(1) {
            assert_eq!(column.from, [old]);
            assert!(column.why.as_ref().is_some_and(|why| why.contains(old)));
            assert_eq!(check_column_name(&column.name), Ok(()));
        }
    }

    #[test]
    fn names_that_are_spellings_of_one_get_numbers_that_no_other_column_has() {
        let found = names(&["a", "A", "A_2", "Á"], &[]);
        let shown: Vec<&str> = found.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(shown, ["a", "A_3", "A_2", "Á_4"]);
        assert_eq!(found[1].from, ["A"]);
        // `from` cannot have two spellings of one name.
        assert!(found[3].from.is_empty());
        let why = found[3].why.as_deref().unwrap_or_default();
        assert!(why.ends_with("option `columns`"), "{why}");
    }

    #[test]
    fn a_repeated_name_is_pointed_out() {
        let renamed = Renamed {
            column: 2,
            from: "x".to_owned(),
            to: Some("x_2".to_owned()),
        };
        let found = names(&["x", "x_2"], &[renamed]);
        assert_eq!(found[1].name, "x_2");
        let why = found[1].why.as_deref().unwrap_or_default();
        assert!(why.starts_with("the header repeats the name `x`"), "{why}");
    }
}
