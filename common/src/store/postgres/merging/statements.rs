//! The statements of a merge. Each step reads the temporary table `carga_merge`, in which a row has
//! a state.
//!
//! | State | The row |
//! |---|---|
//! | `n` | is inserted |
//! | `c` | replaces the row with its key |
//! | `a` | waits until the rows before it are stored |
//! | `i`, `u` | was inserted or has replaced a row in an earlier attempt |
//! | `d`, `v` | changes nothing, is rejected |
//!
//! A merge that stores all rows in one attempt leaves them in the states `n` and `c`. To mark each
//! of them would write the whole temporary table again.
//!
//! The statements of a step take a range of row numbers as `$1` and `$2`.

mod changes;
mod columns;
mod filling;

pub(super) use self::changes::CREATE_CHANGES;
use self::columns::Column;
use super::Staged;
use crate::dataset::{TypedColumn, quote_identifier};
use crate::store::postgres::datasets;
use crate::store::postgres::previous_rows::TableColumns;
use crate::store::postgres::table_rows::constraints::{STAGED, all};

/// The temporary table. It is named `m` in statements.
pub(super) const MERGED: &str = "pg_temp.carga_merge";

/// The rows of the range of a step.
const IN_RANGE: &str = "m.row_number BETWEEN $1 AND $2";

/// Whether an upload keeps no rows. The name of `uploads` and a dot stand before this.
const HAS_NO_ROWS: &str = "status IN ('failed', 'cancelled', 'undone')";

/// How many rows of a range an attempt stores.
pub(super) const COUNT_LEFT: &str = "SELECT count(*) FROM pg_temp.carga_merge
    WHERE _carga_state IN ('n', 'c') AND row_number BETWEEN $1 AND $2";

/// Marks the rows as stored, so that the next attempt does not store them again.
pub(super) const MARK: &str = r#"UPDATE pg_temp.carga_merge AS m
    SET _carga_state = CASE _carga_state WHEN 'n' THEN 'i'::"char" ELSE 'u'::"char" END
    WHERE _carga_state IN ('n', 'c')"#;

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

/// Tells the planner how many rows are in each state.
pub(super) const ANALYZE_STATES: &str = "ANALYZE pg_temp.carga_merge (_carga_state)";

/// Prepares the temporary table for the planner, and for look-ups by row number.
pub(super) const INDEX: &str = "CREATE INDEX ON pg_temp.carga_merge (row_number);
    ANALYZE pg_temp.carga_merge";

/// The names in the statements of one merge, quoted.
#[derive(Debug)]
pub(super) struct Names {
    table: String,
    /// The table with the staged rows.
    source: &'static str,
    /// Whether the changed columns of each row are noted, as a trial needs them.
    notes_changes: bool,
    /// Whether the table is one of Carga, which has the columns `upload_id` and `row_number`.
    is_own: bool,
    key: Vec<String>,
    /// The columns that are written.
    columns: Vec<Column>,
}

impl Names {
    pub(super) fn new(staged: &Staged) -> Self {
        let written = staged.dataset.written_columns();
        let column = |(index, column): &(usize, &TypedColumn)| match &staged.table {
            None => Column::own(*index, column),
            Some(table) => Column::of_user(*index, column, table),
        };
        let key = staged.merge.key.iter();
        Self {
            table: datasets::table_of(&staged.dataset),
            source: staged.source.table,
            notes_changes: staged.deadline.is_some(),
            is_own: staged.table.is_none(),
            key: key.map(|name| quote_identifier(name)).collect(),
            columns: written.iter().map(column).collect(),
        }
    }

    fn column_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The columns that are compared and replaced.
    fn others(&self) -> impl Iterator<Item = &Column> {
        let columns = self.columns.iter();
        columns.filter(move |column| !self.key.contains(&column.name))
    }

    /// Whether the row `t` of the table has the key of the row `m`.
    fn same_key(&self) -> String {
        let key = self.key.iter();
        all(key.map(|name| format!("{} = m.{name}", self.in_table(name))))
    }

    /// The value of the row `t` in a column, for a comparison.
    fn in_table(&self, name: &str) -> String {
        let column = self.columns.iter().find(|column| column.name == name);
        let cast = column.map_or("", |column| column.cast.as_str());
        format!("t.{name}{cast}")
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
    /// row of Carga's own table is replaced even by an equal one if its upload may not keep it.
    pub(super) fn find_changed(&self) -> String {
        let same = self.others().map(is_same);
        let mut same = all(["true".to_owned()].into_iter().chain(same));
        if self.is_own {
            same += " AND EXISTS (
                       SELECT FROM uploads AS o
                       WHERE o.id = t.upload_id AND o.status IN ('completed', 'partial'))";
        }
        let find = format!(
            r#"UPDATE {MERGED} AS m
               SET _carga_state = CASE WHEN {same} THEN 'd'::"char" ELSE 'c'::"char" END
               FROM {} AS t WHERE m._carga_state = 'n' AND {}"#,
            self.table,
            self.same_key()
        );
        match self.notes_changes {
            true => self.note_changes(&find),
            false => find,
        }
    }

    /// Keeps the rows that will be replaced, except those that an undo must not bring back. `$3`:
    /// the number of the upload, `$4`: the names of the table's columns.
    pub(super) fn save(&self, columns: &TableColumns) -> String {
        format!(
            "INSERT INTO previous_rows (upload, row_number, previous_upload, previous_row, row)
             SELECT $3, m.row_number, t.upload_id, t.row_number, jsonb_object($4::text[], ARRAY[{}])
             FROM {MERGED} AS m JOIN {} AS t ON {}
             WHERE m._carga_state = 'c' AND {IN_RANGE} AND NOT EXISTS (
                 SELECT FROM uploads AS o WHERE o.id = t.upload_id AND o.{HAS_NO_ROWS})",
            columns.texts(),
            self.table,
            self.same_key()
        )
    }

    /// The rows that will be replaced, in a FROM clause with its conditions.
    pub(super) fn replaced(&self) -> String {
        format!(
            "{MERGED} AS m JOIN {} AS t ON {} WHERE m._carga_state = 'c' AND {IN_RANGE}",
            self.table,
            self.same_key()
        )
    }

    /// Replaces rows. The key has the same value, and is not written. `$3`: the id of the upload,
    /// for Carga's own table. `None` if nothing but the key could be written.
    pub(super) fn replace(&self) -> Option<String> {
        let others = self.others();
        let others = others.map(|column| format!("{0} = m.{0}", column.name));
        let own = ["upload_id = $3", "row_number = m.row_number"].map(str::to_owned);
        let own = own.into_iter().filter(|_| self.is_own);
        let assignments: Vec<String> = others.chain(own).collect();
        let replace = || {
            format!(
                "UPDATE {} AS t SET {}
                 FROM {MERGED} AS m WHERE m._carga_state = 'c' AND {IN_RANGE} AND {}",
                self.table,
                assignments.join(", "),
                self.same_key()
            )
        };
        (!assignments.is_empty()).then(replace)
    }

    /// Inserts rows. `$3`: the id of the upload, for Carga's own table.
    pub(super) fn insert(&self) -> String {
        let own: &[(&str, &str)] = match self.is_own {
            true => &[("upload_id", "$3"), ("row_number", "m.row_number")],
            false => &[],
        };
        let names = self.column_names().map(|name| (name, name));
        let (names, values): (Vec<&str>, Vec<&str>) = names.chain(own.iter().copied()).unzip();
        format!(
            "INSERT INTO {} AS t ({}) SELECT {}
             FROM {MERGED} AS m WHERE m._carga_state = 'n' AND {IN_RANGE} ORDER BY m.row_number",
            self.table,
            names.join(", "),
            values.join(", ")
        )
    }

    /// Whether the table has a row with the same values as a staged row in these columns.
    pub(super) fn has_partner(&self, key: &[String]) -> String {
        let equal = key
            .iter()
            .map(|column| format!("{} = {STAGED}.{column}", self.in_table(column)));
        format!(
            "EXISTS (SELECT FROM {} AS t WHERE {})",
            self.table,
            all(equal)
        )
    }
}

/// Whether the rows `t` and `m` have the same value. A collation may make different texts equal,
/// but not that of the bytes.
fn is_same(column: &Column) -> String {
    let bytes = match column.has_collation {
        true => " COLLATE \"C\"",
        false => "",
    };
    let Column { name, cast, .. } = column;
    format!("t.{name}{cast}{bytes} IS NOT DISTINCT FROM m.{name}{bytes}")
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
    use crate::dataset::ColumnType;

    fn column(index: usize, name: &str, kind: ColumnType) -> Column {
        let name = name.to_owned();
        Column::own(index, &TypedColumn { name, kind })
    }

    /// The names of a merge that writes the first and the third column of a dataset.
    fn names() -> Names {
        Names {
            table: "datasets.\"sales\"".to_owned(),
            source: "landing",
            notes_changes: false,
            is_own: true,
            key: vec!["\"sku\"".to_owned()],
            columns: vec![
                column(0, "sku", ColumnType::Text),
                column(2, "p", ColumnType::Numeric),
            ],
        }
    }

    /// The names of a merge into a table of the user.
    fn names_of_user() -> Names {
        Names {
            table: "\"shop\".\"sales\"".to_owned(),
            is_own: false,
            ..names()
        }
    }

    #[test]
    fn the_columns_of_the_key_are_neither_compared_nor_written() {
        let changed = names().find_changed();
        let same = "CASE WHEN true AND t.\"p\" IS NOT DISTINCT FROM m.\"p\" AND EXISTS (";
        assert!(changed.contains(same), "{changed}");
        assert!(changed.ends_with("AND t.\"sku\" = m.\"sku\""), "{changed}");
        let replace = names().replace().unwrap();
        let set = "SET \"p\" = m.\"p\", upload_id = $3, row_number = m.row_number\n";
        assert!(replace.contains(set), "{replace}");
    }

    #[test]
    fn a_table_of_the_user_has_no_columns_of_carga() {
        let names = names_of_user();
        let changed = names.find_changed();
        let same = "CASE WHEN true AND t.\"p\" IS NOT DISTINCT FROM m.\"p\" THEN ";
        assert!(changed.contains(same), "{changed}");
        let replace = names.replace().unwrap();
        assert!(replace.contains("SET \"p\" = m.\"p\"\n"), "{replace}");
        let insert = names.insert();
        let start = "INSERT INTO \"shop\".\"sales\" AS t (\"sku\", \"p\") SELECT \"sku\", \"p\"\n";
        assert!(insert.starts_with(start), "{insert}");
    }

    #[test]
    fn a_row_of_the_user_with_nothing_but_a_key_is_not_replaced() {
        let mut names = names_of_user();
        names.columns.truncate(1);
        assert_eq!(names.replace(), None);
    }

    #[test]
    fn texts_are_compared_by_their_bytes() {
        let mut sku = column(0, "sku", ColumnType::Text);
        sku.has_collation = true;
        assert_eq!(
            is_same(&sku),
            "t.\"sku\" COLLATE \"C\" IS NOT DISTINCT FROM m.\"sku\" COLLATE \"C\""
        );
    }

    #[test]
    fn a_domain_over_an_enum_is_compared_as_the_enum() {
        let mut names = names_of_user();
        for column in &mut names.columns {
            column.cast = "::shop.color".to_owned();
        }
        let key = "t.\"sku\"::shop.color = m.\"sku\"";
        assert_eq!(names.same_key(), key);
        let changed = names.find_changed();
        let same = "t.\"p\"::shop.color IS NOT DISTINCT FROM m.\"p\"";
        assert!(changed.contains(same), "{changed}");
        let partner = names.has_partner(&["\"sku\"".to_owned()]);
        let key = "t.\"sku\"::shop.color = s.\"sku\"";
        assert!(partner.contains(key), "{partner}");
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
