//! The names of datasets and of their columns.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The most bytes of a dataset's name. Postgres allows 63, and the view adds [`VIEW_SUFFIX`].
const MAX_BYTES: usize = 63 - VIEW_SUFFIX.len();

/// The most bytes of a column's name. Postgres cuts a longer name, so two columns could get one
/// name.
const MAX_COLUMN_BYTES: usize = 63;

/// The end of the name of a dataset's view.
const VIEW_SUFFIX: &str = "_rows";

/// The columns that Carga adds to the table of every dataset.
const OWN_COLUMNS: [&str; 2] = ["upload_id", "row_number"];

/// The columns that every table in Postgres has.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// The beginning of the names that Carga keeps for itself. The intake does not store such columns
/// of a file.
const OWN_PREFIX: &str = "_carga_";

/// The name of a dataset: 1 to 58 bytes without `/` and control characters. Upper and lower case
/// differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DatasetName(String);

impl DatasetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the dataset's view. No dataset has this name.
    pub(super) fn view(&self) -> String {
        format!("{}{VIEW_SUFFIX}", self.0)
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that the databases or Carga cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameFault(String);

impl FromStr for DatasetName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_dataset_name(text).map_err(NameFault)?;
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for DatasetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn check_dataset_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("the name of a dataset must not be empty or blank".to_owned());
    }
    if name.len() > MAX_BYTES {
        return Err(format!(
            "the name of a dataset has at most {MAX_BYTES} bytes, and this one has {}",
            name.len()
        ));
    }
    if name.contains('/') || name.chars().any(char::is_control) {
        return Err("the name of a dataset must not contain `/` or control characters".to_owned());
    }
    // Clients resolve these two in a path before they send a request.
    if name == "." || name == ".." {
        return Err(format!("the name of a dataset must not be `{name}`"));
    }
    // In either case, because SQLite does not distinguish the case of a table's name.
    if ends_with_ignoring_case(name, VIEW_SUFFIX) {
        return Err(format!(
            "the name of a dataset must not end in `{VIEW_SUFFIX}`, as the names of views do"
        ));
    }
    Ok(())
}

/// Checks that the table of a dataset can have a column of this name: 1 to 63 bytes without the
/// character NUL, and not a name that Carga or Postgres uses itself.
pub fn check_column_name(name: &str) -> Result<(), NameFault> {
    check_column(name).map_err(NameFault)
}

fn check_column(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name of a column must not be empty".to_owned());
    }
    if name.len() > MAX_COLUMN_BYTES {
        return Err(format!(
            "the name of a column has at most {MAX_COLUMN_BYTES} bytes, and this one has {}",
            name.len()
        ));
    }
    if name.contains('\0') {
        return Err("the name of a column must not contain the character NUL".to_owned());
    }
    let is_one_of = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    if is_one_of(&OWN_COLUMNS) {
        return Err(format!(
            "`{name}` is a column that Carga adds to every dataset"
        ));
    }
    if is_one_of(&SYSTEM_COLUMNS) {
        return Err(format!(
            "`{name}` is a column that Postgres adds to every table"
        ));
    }
    if begins_with_ignoring_case(name, OWN_PREFIX) {
        return Err(format!(
            "names that begin with `{OWN_PREFIX}` are reserved for Carga"
        ));
    }
    Ok(())
}

fn begins_with_ignoring_case(text: &str, start: &str) -> bool {
    let bytes = text.as_bytes().get(..start.len());
    bytes.is_some_and(|bytes| bytes.eq_ignore_ascii_case(start.as_bytes()))
}

fn ends_with_ignoring_case(text: &str, end: &str) -> bool {
    let start = text.len().checked_sub(end.len());
    start.is_some_and(|start| text.as_bytes()[start..].eq_ignore_ascii_case(end.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str) -> String {
        name.parse::<DatasetName>().unwrap_err().to_string()
    }

    #[test]
    fn a_dataset_keeps_the_case_and_the_blanks_of_its_name() {
        for text in ["sales", "Sales 2024", "vendas é 🦀", "a;\"b\"", "rows"] {
            let name: DatasetName = text.parse().unwrap();
            assert_eq!(name.as_str(), text);
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn a_name_of_58_bytes_is_the_longest() {
        assert!("é".repeat(29).parse::<DatasetName>().is_ok());
        assert_eq!(
            fault(&"a".repeat(59)),
            "the name of a dataset has at most 58 bytes, and this one has 59"
        );
    }

    #[test]
    fn the_fault_of_a_dataset_s_name_says_the_rule() {
        assert!(fault("").ends_with("must not be empty or blank"));
        assert!(fault(" \u{a0}").ends_with("must not be empty or blank"));
        for name in ["a/b", "a\0", "a\nb", "a\u{7f}"] {
            assert!(fault(name).ends_with("must not contain `/` or control characters"));
        }
        assert!(fault("..").ends_with("must not be `..`"));
        for name in ["sales_rows", "sales_ROWS", "_rows"] {
            assert!(fault(name).contains("must not end in `_rows`"));
        }
    }

    #[test]
    fn json_has_a_name_as_a_text_and_checks_it() {
        let name: DatasetName = serde_json::from_str("\"Sales\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"Sales\"");
        assert!(serde_json::from_str::<DatasetName>("\"a/b\"").is_err());
    }

    #[test]
    fn a_column_may_have_any_other_name() {
        for name in ["a\nb", "código", "row number", "_carga", "_rows", "/"] {
            assert_eq!(check_column_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_column_of_63_bytes_is_accepted_and_its_twin_of_64_is_a_fault() {
        let longest = "é".repeat(31) + "x";
        assert_eq!(check_column_name(&longest), Ok(()));
        let fault = check_column_name(&(longest + "x")).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "the name of a column has at most 63 bytes, and this one has 64"
        );
    }

    #[test]
    fn the_columns_of_carga_and_of_postgres_are_faults_in_either_case() {
        for name in [
            "",
            "a\0",
            "upload_id",
            "Row_Number",
            "_carga_row",
            "_CARGA_id",
            "ctid",
            "XMIN",
            "tableoid",
        ] {
            assert!(check_column_name(name).is_err(), "{name}");
        }
    }
}
