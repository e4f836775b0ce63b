//! The SQL of a merge.
//!
//! In every statement, `$1` and `$2` are the first and the last id of the staged rows in question,
//! and `$3` is the upload.
//!
//! Lists of columns are compared as row values, because SQLite limits the depth of an expression,
//! and a dataset may have more columns than that.

use crate::dataset::{Mode, TypedColumn, quote_identifier};
use crate::store::sqlite::{previous_rows, typed_tables};
use crate::typed::sqlite_value;
use crate::upload::{Merge, UploadDataset};

/// The outcomes of a staged row, in the column `outcome`. A row with the outcome 0 is written: it
/// replaces its partner in the table, or is inserted if it has none.
pub(super) const WRITTEN: i64 = 0;
pub(super) const DUPLICATE: i64 = 1;
pub(super) const REJECTED: i64 = 2;

/// Whether rows that will soon be removed have the keys of staged rows.
pub(super) const MEETS_ROWS_TO_REMOVE: &str = "SELECT EXISTS (
    SELECT 1 FROM temp.carga_merge m
    WHERE m.partner IS NOT NULL
      AND (SELECT u.cleanup_pending AND u.status IN ('failed', 'cancelled', 'undone')
           FROM uploads u WHERE u.number = m.partner >> 36))";

/// How many rows are inserted, updated, duplicates and rejected. `$1` to `$3` are the outcomes.
pub(super) const COUNTS: &str = "SELECT
        count(*) FILTER (WHERE outcome = $1 AND partner IS NULL),
        count(*) FILTER (WHERE outcome = $1 AND partner IS NOT NULL),
        count(*) FILTER (WHERE outcome = $2),
        count(*) FILTER (WHERE outcome = $3)
    FROM temp.carga_merge";

/// The status of the upload that owns the partner of `m`.
const STATUS_OF_PARTNER: &str = "(SELECT u.status FROM uploads u WHERE u.number = m.partner >> 36)";

/// The statements that merge the rows of an upload, or try the rows of a file.
///
/// The temporary table `carga_merge` has the staged rows with their values, which are in the
/// columns `c0`, `c1` and so on. `partner` is the id of the row in the dataset's table that has the
/// same key.
pub(super) struct Statements<'a> {
    dataset: &'a UploadDataset,
    mode: Mode,
    /// The columns of the key, with their indexes in the dataset.
    key: Vec<(usize, &'a TypedColumn)>,
    /// The columns that the file has.
    written: Vec<(usize, &'a TypedColumn)>,
    /// The dataset's table.
    table: String,
    /// The table of the staged rows: `rows`, or a table with the same columns.
    source: &'static str,
}

impl<'a> Statements<'a> {
    pub(super) fn new(dataset: &'a UploadDataset, merge: &Merge, source: &'static str) -> Self {
        let columns = dataset.columns.iter().enumerate();
        let key = columns.filter(|(_, column)| merge.key.contains(&column.name));
        Self {
            dataset,
            mode: merge.mode,
            key: key.collect(),
            written: dataset.written_columns(),
            table: typed_tables::table(&dataset.key()),
            source,
        }
    }

    /// Fills `carga_merge`, and finds the outcome and the partner of each row.
    pub(super) fn preparation(&self) -> Vec<String> {
        let mut statements = vec![self.create(), self.fill()];
        if self.mode != Mode::Append {
            statements.extend([
                self.index(),
                self.find_repeated(),
                self.find_partners(),
                self.find_duplicates(),
            ]);
        }
        statements
    }

    fn create(&self) -> String {
        let columns = self.dataset.columns.iter().enumerate();
        let columns = columns.map(|(index, column)| {
            let type_name = typed_tables::type_name(column.kind);
            format!("c{index} {type_name}")
        });
        format!(
            "CREATE TEMP TABLE carga_merge
                 (id integer PRIMARY KEY, outcome integer NOT NULL DEFAULT 0, partner integer, {})",
            joined(columns)
        )
    }

    /// The subquery has an OFFSET for the same reason as in [`typed_tables::insert_rows`].
    fn fill(&self) -> String {
        let columns = self.dataset.columns.iter().enumerate();
        let values = columns.map(|(index, column)| sqlite_value(column.kind, index));
        format!(
            "INSERT INTO temp.carga_merge (id, {})
             SELECT id, {}
             FROM (SELECT id, fields AS value FROM {} WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT -1 OFFSET 0)",
            joined((0..self.dataset.columns.len()).map(|index| format!("c{index}"))),
            joined(values),
            self.source
        )
    }

    fn index(&self) -> String {
        let key = joined(self.key.iter().map(|(index, _)| format!("c{index}")));
        format!("CREATE INDEX temp.carga_merge_key ON carga_merge ({key})")
    }

    /// Of rows with one key, the mode `update` writes the last, and the mode `ignore` the first.
    fn find_repeated(&self) -> String {
        let wins = match self.mode {
            Mode::Update => ">",
            Mode::Append | Mode::Ignore => "<",
        };
        format!(
            "UPDATE temp.carga_merge AS m SET outcome = {DUPLICATE}
             WHERE EXISTS (SELECT 1 FROM temp.carga_merge o WHERE ({}) = ({}) AND o.id {wins} m.id)",
            staged("o", &self.key),
            staged("m", &self.key)
        )
    }

    fn find_partners(&self) -> String {
        format!(
            "UPDATE temp.carga_merge AS m
             SET partner = (SELECT t._carga_id FROM {} t WHERE ({}) = ({}))
             WHERE m.outcome = 0",
            self.table,
            stored("t", &self.key),
            staged("m", &self.key)
        )
    }

    /// A row with a partner changes nothing if rows are ignored, or if both have the same values.
    /// A partner whose upload has not ended well may be removed later, so it is replaced even if
    /// both have the same values.
    fn find_duplicates(&self) -> String {
        if self.mode == Mode::Ignore {
            return format!(
                "UPDATE temp.carga_merge SET outcome = {DUPLICATE}
                 WHERE outcome = 0 AND partner IS NOT NULL"
            );
        }
        let same_values = match &self.compared()[..] {
            [] => String::new(),
            compared => format!(
                "AND ({}) IS ({})",
                stored("t", compared),
                staged("m", compared)
            ),
        };
        format!(
            "UPDATE temp.carga_merge AS m SET outcome = {DUPLICATE}
             FROM {} t
             WHERE t._carga_id = m.partner AND m.outcome = 0
               AND {STATUS_OF_PARTNER} IN ('completed', 'partial') {same_values}",
            self.table
        )
    }

    /// The columns that the file has, without those of the key.
    pub(super) fn compared(&self) -> Vec<(usize, &'a TypedColumn)> {
        let written = self.written.iter().copied();
        let compared = written.filter(|column| !self.key.contains(column));
        compared.collect()
    }

    /// Counts the rows with an outcome whose partner has another value, for each column that is
    /// compared. `None` if no column is compared, or the mode never replaces rows.
    pub(super) fn count_changes(&self, outcome: i64) -> Option<String> {
        let compared = self.compared();
        if self.mode != Mode::Update || compared.is_empty() {
            return None;
        }
        let counts = compared.into_iter().map(|(index, column)| {
            let name = quote_identifier(&column.name);
            format!("count(*) FILTER (WHERE t.{name} IS NOT m.c{index})")
        });
        Some(format!(
            "SELECT {}
             FROM temp.carga_merge m CROSS JOIN {} t ON t._carga_id = m.partner
             WHERE m.outcome = {outcome}",
            joined(counts),
            self.table
        ))
    }

    /// Keeps the rows that will be replaced in `previous_rows`. `None` if rows are never replaced.
    ///
    /// Rows that are about to be removed are not kept, since an undo must not bring them back. A
    /// row that no upload owns has no status, and is kept.
    pub(super) fn keep_previous(&self) -> Option<String> {
        let keep = format!(
            "INSERT INTO previous_rows (id, previous_id, previous_upload, cells)
             SELECT m.id, t._carga_id, t.upload_id, {}
             FROM temp.carga_merge m JOIN {} t ON t._carga_id = m.partner
             WHERE m.outcome = 0
               AND ({STATUS_OF_PARTNER} IN ('failed', 'cancelled', 'undone')) IS NOT TRUE
             ORDER BY m.id",
            previous_rows::kept_values(&self.dataset.columns),
            self.table
        );
        (self.mode == Mode::Update).then_some(keep)
    }

    /// Writes rows to the dataset's table: those with a partner, then the others.
    ///
    /// `OR ABORT` overrides the conflict clauses of an operator's constraints, as it does in
    /// [`typed_tables::insert_rows`].
    pub(super) fn writing(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if self.mode == Mode::Update {
            statements.push(self.replace());
        }
        statements.push(self.insert());
        statements
    }

    fn replace(&self) -> String {
        let assignments = self.written.iter().map(|(index, column)| {
            let name = quote_identifier(&column.name);
            format!(", {name} = m.c{index}")
        });
        format!(
            "UPDATE OR ABORT {} AS t SET _carga_id = m.id, upload_id = $3{}
             FROM temp.carga_merge m
             WHERE t._carga_id = m.partner AND m.outcome = 0 AND m.id BETWEEN $1 AND $2",
            self.table,
            assignments.collect::<String>()
        )
    }

    fn insert(&self) -> String {
        let (mut columns, mut values) = (String::new(), String::new());
        for (index, column) in &self.written {
            columns += &format!(", {}", quote_identifier(&column.name));
            values += &format!(", c{index}");
        }
        format!(
            "INSERT OR ABORT INTO {} (_carga_id, upload_id{columns})
             SELECT id, $3{values} FROM temp.carga_merge
             WHERE outcome = 0 AND partner IS NULL AND id BETWEEN $1 AND $2 ORDER BY id",
            self.table
        )
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Columns of the dataset's table.
fn stored(alias: &str, columns: &[(usize, &TypedColumn)]) -> String {
    let name = |(_, column): &(usize, &TypedColumn)| {
        let name = quote_identifier(&column.name);
        format!("{alias}.{name}")
    };
    joined(columns.iter().map(name))
}

/// The same columns of `carga_merge`.
fn staged(alias: &str, columns: &[(usize, &TypedColumn)]) -> String {
    joined(columns.iter().map(|(index, _)| format!("{alias}.c{index}")))
}
