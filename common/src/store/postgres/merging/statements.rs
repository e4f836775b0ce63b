//! The statements of a merge. Each step reads the temporary table `carga_merge`, in which a row has
//! a state.
//!
//! | State | The row |
//! |---|---|
//! | `n` | will be inserted |
//! | `c` | will replace the row with its key |
//! | `a` | waits until the rows before it are stored |
//! | `i`, `u`, `d`, `v` | was inserted, replaced a row, changed nothing, violates a constraint |
//!
//! The statements of a step take a range of row numbers as `$1` and `$2`.

use super::Staged;
use crate::dataset::{TypedColumn, quote_identifier};
use crate::store::postgres::datasets::{self, sql_type};
use crate::store::postgres::previous_rows::TableColumns;
use crate::store::postgres::table_rows::constraints::{STAGED, all};
use crate::store::rules::written_columns;

/// The temporary table. It is named `m` in statements.
pub(super) const MERGED: &str = "pg_temp.carga_merge";

/// The rows of the range of a step.
const IN_RANGE: &str = "m.row_number BETWEEN $1 AND $2";

/// Whether an upload keeps no rows. The name of `uploads` and a point stand before this.
const HAS_NO_ROWS: &str = "status IN ('failed', 'cancelled', 'undone')";

/// Marks the rows of a range as stored.
pub(super) const MARK: &str = r#"UPDATE pg_temp.carga_merge AS m
    SET _carga_state = CASE _carga_state WHEN 'n' THEN 'i'::"char" ELSE 'u'::"char" END
    WHERE _carga_state IN ('n', 'c') AND row_number BETWEEN $1 AND $2"#;

/// Puts the rows back that were set aside.
pub(super) const PUT_BACK: &str =
    "UPDATE pg_temp.carga_merge SET _carga_state = 'n' WHERE _carga_state = 'a'";

/// The numbers of the rows that must still be stored.
pub(super) const LEFT: &str = "SELECT row_number FROM pg_temp.carga_merge
    WHERE _carga_state IN ('n', 'c') ORDER BY row_number";

/// Rejects one row.
pub(super) const REJECT: &str =
    "UPDATE pg_temp.carga_merge SET _carga_state = 'v' WHERE row_number = $1";

/// Rejects one row that the temporary table does not take.
pub(super) const REJECT_UNREAD: &str =
    "INSERT INTO pg_temp.carga_merge (row_number, _carga_state) VALUES ($1, 'v')";

/// Prepares the temporary table for the planner, and for look-ups by row number.
pub(super) const INDEX: &str = "CREATE INDEX ON pg_temp.carga_merge (row_number);
    ANALYZE pg_temp.carga_merge";

/// The names in the statements of one merge, quoted.
#[derive(Debug)]
pub(super) struct Names {
    table: String,
    key: Vec<String>,
    /// The columns that are written, with their types.
    columns: Vec<(String, &'static str)>,
    /// The canonical texts in `landing`, cast to the types.
    values: Vec<String>,
}

impl Names {
    pub(super) fn new(staged: &Staged) -> Self {
        let written = written_columns(&staged.dataset);
        let column = |(index, column): &(usize, &TypedColumn)| {
            let kind = sql_type(column.kind);
            let value = format!("fields[{}]::{kind}", index + 1);
            ((quote_identifier(&column.name), kind), value)
        };
        let (columns, values) = written.iter().map(column).unzip();
        let key = staged.merge.key.iter();
        Self {
            table: datasets::table(staged.dataset.name.as_str()),
            key: key.map(|name| quote_identifier(name)).collect(),
            columns,
            values,
        }
    }

    fn column_names(&self) -> String {
        let names = self.columns.iter();
        names.map(|(name, _)| format!("{name}, ")).collect()
    }

    /// The columns that are compared and replaced.
    fn others(&self) -> impl Iterator<Item = &str> {
        let names = self.columns.iter().map(|(name, _)| name);
        let others = names.filter(move |name| !self.key.contains(name));
        others.map(String::as_str)
    }

    /// Whether the row `t` of the table has the key of the row `m`.
    fn same_key(&self) -> String {
        all(self.key.iter().map(|name| format!("t.{name} = m.{name}")))
    }

    /// Makes the temporary table.
    pub(super) fn create(&self) -> String {
        let columns = self.columns.iter();
        let columns: String = columns
            .map(|(name, kind)| format!("{name} {kind}, "))
            .collect();
        format!(
            r#"CREATE TEMP TABLE carga_merge
               ({columns}row_number bigint NOT NULL, _carga_state "char" NOT NULL DEFAULT 'n') ON COMMIT DROP"#
        )
    }

    /// Reads rows of `landing`. `$3`: the number of the upload.
    pub(super) fn fill(&self) -> String {
        let values = self.values.iter();
        let values: String = values.map(|value| format!("{value}, ")).collect();
        format!(
            "INSERT INTO {MERGED} ({}row_number) SELECT {values}row_number FROM landing
             WHERE upload = $3 AND row_number BETWEEN $1 AND $2",
            self.column_names()
        )
    }

    /// Takes rows out whose key another row has. The first row of each key stays. `order` is that
    /// of the row numbers.
    pub(super) fn take_repeated(&self, order: &str) -> String {
        set_repeated("d", &self.key, order)
    }

    /// Makes other writers and other merges wait for this merge. Readers do not wait.
    pub(super) fn lock(&self) -> String {
        datasets::lock_against_writers(&self.table)
    }

    /// Takes rows out whose key is in the table.
    pub(super) fn take_existing(&self) -> String {
        format!(
            "UPDATE {MERGED} AS m SET _carga_state = 'd'
             WHERE m._carga_state = 'n' AND EXISTS (SELECT FROM {} AS t WHERE {})",
            self.table,
            self.same_key()
        )
    }

    /// Whether a row with the key of a staged row will be removed, because its upload has not ended
    /// well or was undone.
    pub(super) fn has_leaving(&self) -> String {
        format!(
            "SELECT EXISTS (
                 SELECT FROM {MERGED} AS m JOIN {} AS t ON {} JOIN uploads AS o ON o.id = t.upload_id
                 WHERE m._carga_state = 'n' AND o.cleanup_pending AND o.{HAS_NO_ROWS})",
            self.table,
            self.same_key()
        )
    }

    /// Finds the rows whose key is in the table, and takes those out that would change nothing. A
    /// row is replaced even by an equal one if its upload may not keep it.
    pub(super) fn find_changed(&self) -> String {
        let same = self
            .others()
            .map(|name| format!("t.{name} IS NOT DISTINCT FROM m.{name}"));
        let same = all(["true".to_owned()].into_iter().chain(same));
        format!(
            r#"UPDATE {MERGED} AS m
               SET _carga_state = CASE WHEN {same} AND EXISTS (
                       SELECT FROM uploads AS o
                       WHERE o.id = t.upload_id AND o.status IN ('completed', 'partial'))
                   THEN 'd'::"char" ELSE 'c'::"char" END
               FROM {} AS t WHERE m._carga_state = 'n' AND {}"#,
            self.table,
            self.same_key()
        )
    }

    /// Keeps the rows that will be replaced, except those that an undo must not bring back. `$3`:
    /// the number of the upload, `$4`: the names of the table's columns.
    pub(super) fn save(&self, columns: &TableColumns) -> String {
        format!(
            "INSERT INTO previous_rows (upload, row_number, previous_upload, previous_row, row)
             SELECT $3, m.row_number, t.upload_id, t.row_number, jsonb_object($4::text[], ARRAY[{}])
             FROM {MERGED} AS m JOIN {} AS t ON {}
             WHERE m._carga_state = 'c' AND {IN_RANGE} AND NOT EXISTS (
                 SELECT FROM uploads AS o WHERE o.id = t.upload_id AND o.{HAS_NO_ROWS})
             ON CONFLICT DO NOTHING",
            columns.texts(),
            self.table,
            self.same_key()
        )
    }

    /// Replaces rows. `$3`: the id of the upload. The key has the same value, and is not written.
    pub(super) fn replace(&self) -> String {
        let others = self.others();
        let others: String = others.map(|name| format!("{name} = m.{name}, ")).collect();
        format!(
            "UPDATE {} AS t SET {others}upload_id = $3, row_number = m.row_number
             FROM {MERGED} AS m WHERE m._carga_state = 'c' AND {IN_RANGE} AND {}",
            self.table,
            self.same_key()
        )
    }

    /// Inserts rows. `$3`: the id of the upload.
    pub(super) fn insert(&self) -> String {
        let columns = self.column_names();
        format!(
            "INSERT INTO {} ({columns}upload_id, row_number) SELECT {columns}$3, row_number
             FROM {MERGED} AS m WHERE m._carga_state = 'n' AND {IN_RANGE} ORDER BY row_number",
            self.table
        )
    }

    /// Whether the table has a row with the same values as a staged row in these columns.
    pub(super) fn has_partner(&self, key: &[String]) -> String {
        let equal = key
            .iter()
            .map(|column| format!("t.{column} = {STAGED}.{column}"));
        format!(
            "EXISTS (SELECT FROM {} AS t WHERE {})",
            self.table,
            all(equal)
        )
    }
}

/// Rejects the rows for which a condition is true, and returns their numbers.
pub(super) fn reject_where(states: &str, condition: &str) -> String {
    format!(
        "UPDATE {MERGED} AS {STAGED} SET _carga_state = 'v'
         WHERE {STAGED}._carga_state IN ({states}) AND ({condition})
         RETURNING {STAGED}.row_number"
    )
}

/// Sets rows aside that have the same values as a row before them in these columns.
pub(super) fn set_aside(key: &[String]) -> String {
    set_repeated("a", key, "ASC")
}

/// Gives a state to all rows of a key but the first. A NULL makes a key different from all others.
fn set_repeated(state: &str, key: &[String], order: &str) -> String {
    let not_null = key.iter().map(|name| format!("{name} IS NOT NULL"));
    format!(
        "UPDATE {MERGED} AS m SET _carga_state = '{state}'
         FROM (SELECT row_number,
                      row_number() OVER (PARTITION BY {} ORDER BY row_number {order}) AS occurrence
               FROM {MERGED} WHERE _carga_state = 'n' AND {}) AS numbered
         WHERE numbered.row_number = m.row_number AND numbered.occurrence > 1",
        key.join(", "),
        all(not_null)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            table: "datasets.\"sales\"".to_owned(),
            key: vec!["\"sku\"".to_owned()],
            columns: vec![
                ("\"sku\"".to_owned(), "text"),
                ("\"p\"".to_owned(), "numeric"),
            ],
            values: ["fields[1]::text", "fields[3]::numeric"]
                .map(String::from)
                .to_vec(),
        }
    }

    #[test]
    fn the_temporary_table_takes_the_typed_values_of_the_texts() {
        let fill = "INSERT INTO pg_temp.carga_merge (\"sku\", \"p\", row_number) \
                    SELECT fields[1]::text, fields[3]::numeric, row_number FROM landing";
        assert!(names().fill().starts_with(fill), "{}", names().fill());
        let columns = "(\"sku\" text, \"p\" numeric, row_number bigint NOT NULL, ";
        assert!(names().create().contains(columns), "{}", names().create());
    }

    #[test]
    fn the_columns_of_the_key_are_neither_compared_nor_written() {
        let changed = names().find_changed();
        let same = "CASE WHEN true AND t.\"p\" IS NOT DISTINCT FROM m.\"p\" AND EXISTS (";
        assert!(changed.contains(same), "{changed}");
        assert!(changed.ends_with("AND t.\"sku\" = m.\"sku\""), "{changed}");
        let replace = names().replace();
        let set = "SET \"p\" = m.\"p\", upload_id = $3, row_number = m.row_number\n";
        assert!(replace.contains(set), "{replace}");
    }

    #[test]
    fn a_null_makes_a_key_different_from_all_others() {
        let repeated = set_aside(&["\"a\"", "\"b\""].map(String::from));
        let key = "PARTITION BY \"a\", \"b\" ORDER BY row_number ASC";
        assert!(repeated.contains(key), "{repeated}");
        let not_null = "AND \"a\" IS NOT NULL AND \"b\" IS NOT NULL)";
        assert!(repeated.contains(not_null), "{repeated}");
    }
}
