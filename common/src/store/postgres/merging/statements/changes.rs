//! The columns in which a trial finds other values.
//!
//! They are noted before a row is replaced, because the table has the new values afterwards. They
//! are counted at the end, because the row may still be rejected. The notes are in a table of their
//! own: the table of the rows may have as many columns as Postgres allows.

use super::{MERGED, Names, is_same};

/// Makes the table of the notes: whether each column that is compared has another value.
pub(in crate::store::postgres::merging) const CREATE_CHANGES: &str =
    "CREATE TEMP TABLE carga_changes
    (row_number bigint NOT NULL, changed boolean[] NOT NULL) ON COMMIT DROP";

impl Names {
    /// Wraps [`Self::find_changed`], and notes the changed columns of the rows that it finds.
    pub(super) fn note_changes(&self, find_changed: &str) -> String {
        let changed = self.others();
        let changed: Vec<String> = changed
            .map(|column| format!("NOT ({})", is_same(column)))
            .collect();
        format!(
            "WITH found AS (
                 {find_changed}
                 RETURNING m.row_number, m._carga_state, ARRAY[{}]::boolean[] AS changed)
             INSERT INTO pg_temp.carga_changes (row_number, changed)
             SELECT row_number, changed FROM found WHERE _carga_state = 'c'",
            changed.join(", ")
        )
    }

    /// Counts the updated rows with another value, for each column that is compared. `None` if
    /// no column is compared.
    pub(in crate::store::postgres::merging) fn count_changes(&self) -> Option<String> {
        let counts = self.others().zip(1..);
        let counts: Vec<String> = counts
            .map(|(_, place)| format!("count(*) FILTER (WHERE c.changed[{place}])"))
            .collect();
        let count = format!(
            "SELECT ARRAY[{}]::bigint[]
             FROM {MERGED} AS m JOIN pg_temp.carga_changes AS c USING (row_number)
             WHERE m._carga_state IN ('c', 'u')",
            counts.join(", ")
        );
        (!counts.is_empty()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::Column;
    use super::*;
    use crate::dataset::{ColumnType, TypedColumn};

    fn names(notes_changes: bool) -> Names {
        let columns = [("sku", ColumnType::Text), ("p", ColumnType::Numeric)];
        let column = |(index, (name, kind)): (usize, (&str, ColumnType))| {
            let name = name.to_owned();
            Column::own(index, &TypedColumn { name, kind })
        };
        Names {
            table: "datasets.\"sales\"".to_owned(),
            source: "landing",
            notes_changes,
            is_own: true,
            key: vec!["\"sku\"".to_owned()],
            columns: columns.into_iter().enumerate().map(column).collect(),
        }
    }

    #[test]
    fn a_trial_notes_whether_each_column_but_those_of_the_key_has_another_value() {
        let names = names(true);
        let noted = "ARRAY[NOT (t.\"p\" IS NOT DISTINCT FROM m.\"p\")]::boolean[] AS changed)";
        let changed = names.find_changed();
        assert!(changed.contains(noted), "{changed}");
        let counted = "SELECT ARRAY[count(*) FILTER (WHERE c.changed[1])]::bigint[]\n";
        let count = names.count_changes().unwrap();
        assert!(count.starts_with(counted), "{count}");
    }

    #[test]
    fn no_changes_are_counted_in_a_table_that_has_nothing_but_a_key() {
        let mut names = names(true);
        names.columns.truncate(1);
        let changed = names.find_changed();
        assert!(changed.contains("ARRAY[]::boolean[]"), "{changed}");
        assert_eq!(names.count_changes(), None);
    }

    #[test]
    fn a_merge_notes_no_changes() {
        let changed = names(false).find_changed();
        assert!(!changed.contains("carga_changes"), "{changed}");
    }
}
