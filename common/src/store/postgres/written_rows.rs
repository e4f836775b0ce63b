//! The rows that merges wrote into tables of the user, so that an undo can take them back.
//!
//! Such a table has no column that names the upload of a row. An undo finds a row by its primary
//! key, and a digest tells whether the row is still as the upload wrote it. A row that the upload
//! replaced is kept as in `previous_rows`.
//!
//! The digest is taken when the row is stored, so it covers the changes of triggers that ran
//! before. A row that a trigger changes afterwards counts as changed by somebody else.

use sqlx::PgConnection;

use super::previous_rows::{TableColumns, texts};
use crate::dataset::{DatasetKey, TableName, quote_identifier};
use crate::store::rules::CHUNK_ROWS;

/// The columns of the primary key of a table, with their types, or the types below domains: a
/// domain over an enumeration has no operator `=`. `$1`: the table.
const KEY: &str = "SELECT a.attname::text,
        CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
                       ELSE format_type(a.atttypid, a.atttypmod) END
    FROM pg_constraint c
    CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.conrelid = to_regclass($1) AND c.contype = 'p'
    ORDER BY k.place";

/// Deletes the first rows of an upload, or all of them if there are fewer. `$1`: the number of the
/// upload, `$2`: how many rows are deleted, less one.
const DELETE_NEXT: &str = "DELETE FROM written_rows
    WHERE upload = $1 AND id <= coalesce(
        (SELECT id FROM written_rows WHERE upload = $1 ORDER BY id OFFSET $2 LIMIT 1),
        9223372036854775807)";

/// Makes the uploads of a dataset irreversible. The records change before the rows are deleted, so
/// that this waits for an undo which has locked its record. `$1` and `$2`: the tenant and the name
/// of the dataset.
const DELETE_OF_DATASET: [&str; 2] = [
    "UPDATE uploads SET is_reversible = false, written_columns = '{}', updated_at = now()
     WHERE tenant = $1 AND dataset ->> 'name' = $2 AND written_columns <> '{}'",
    "DELETE FROM written_rows w USING uploads u
     WHERE w.upload = u.number AND u.tenant = $1 AND u.dataset ->> 'name' = $2",
];

/// How the rows of a table of the user are found again. Read this after the table is locked,
/// because its columns may change before.
#[derive(Debug)]
pub(super) struct RowIdentity {
    /// The columns of the primary key, with their types.
    key: Vec<(String, String)>,
    /// The columns that the digests cover.
    pub(super) columns: TableColumns,
}

/// The columns of a table of the user when an upload was merged. Both lists are empty if the table
/// had no primary key.
#[derive(Debug, Default)]
pub(super) struct WrittenColumns {
    /// The names of the columns that the digests cover.
    pub(super) names: Vec<String>,
    /// The names of the columns of the primary key.
    pub(super) primary_key: Vec<String>,
}

impl RowIdentity {
    /// Returns `None` if the table is missing or has no primary key. An upload into it cannot be
    /// undone.
    pub(super) async fn read(
        connection: &mut PgConnection,
        table: &TableName,
    ) -> sqlx::Result<Option<Self>> {
        let table = table.quoted();
        let key: Vec<(String, String)> = sqlx::query_as(KEY)
            .bind(&table)
            .fetch_all(&mut *connection)
            .await?;
        let columns = TableColumns::read(connection, &table).await?;
        let is_complete = !key.is_empty() && !columns.names.is_empty();
        Ok(is_complete.then_some(Self { key, columns }))
    }

    /// The columns as they are now.
    pub(super) fn written(&self) -> WrittenColumns {
        WrittenColumns {
            names: self.columns.names.clone(),
            primary_key: self.key_names(),
        }
    }

    /// Whether the table still has the columns, and the same primary key.
    pub(super) fn has(&self, written: &WrittenColumns) -> bool {
        let mut names = written.names.iter();
        self.key_names() == written.primary_key
            && names.all(|name| self.columns.names.contains(name))
    }

    /// Wraps `insert`, an INSERT into the table whose target is named `t`, and records the rows
    /// that it inserts. The statement reports their number. `$4`: the number of the upload.
    pub(super) fn keep_inserted(&self, insert: &str) -> String {
        format!(
            "WITH written AS ({insert} RETURNING {} AS key, {} AS digest)
             INSERT INTO written_rows (upload, key, digest) SELECT $4, key, digest FROM written",
            self.key_texts(),
            digest(&self.columns.names)
        )
    }

    /// Wraps `update`, an UPDATE of the table `t` from the rows `m`, and records the rows that it
    /// replaces with their previous values. The statement reports their number. `from` is the FROM
    /// clause that joins `t` and `m` for these rows, with its conditions. `$3`: the names of the
    /// columns, `$4`: the number of the upload.
    ///
    /// The update may change the primary key, so `row_number` joins the two states of a row.
    pub(super) fn keep_updated(&self, update: &str, from: &str) -> String {
        format!(
            "WITH previous AS (
                 SELECT m.row_number, jsonb_object($3::text[], ARRAY[{}]) AS row FROM {from}),
             written AS ({update} RETURNING m.row_number, {} AS key, {} AS digest)
             INSERT INTO written_rows (upload, key, digest, previous)
             SELECT $4, w.key, w.digest, p.row FROM written AS w JOIN previous AS p USING (row_number)",
            self.columns.texts(),
            self.key_texts(),
            digest(&self.columns.names)
        )
    }

    /// Whether the row `t` of the table is the written row `p`, and has not changed.
    pub(super) fn is_as_written(&self, written: &WrittenColumns) -> String {
        let key = self.key.iter().zip(1..);
        let same: String = key
            .map(|((name, kind), index)| {
                let name = quote_identifier(name);
                format!("t.{name}::{kind} = (p.key[{index}])::{kind} AND ")
            })
            .collect();
        format!("{same}{} = p.digest", digest(&written.names))
    }

    /// The texts of the primary key of the row `t`.
    fn key_texts(&self) -> String {
        format!("ARRAY[{}]", texts(&self.key_names()))
    }

    fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// The digest of the values of the row `t` in these columns. The text of a row quotes each value,
/// and distinguishes NULL from an empty text, so different rows have different texts.
fn digest(names: &[String]) -> String {
    format!("sha256(convert_to(ROW({})::text, 'UTF8'))", texts(names))
}

/// Deletes all written rows of an upload.
pub(super) async fn delete(connection: &mut PgConnection, number: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM written_rows WHERE upload = $1")
        .bind(number)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes written rows of an upload in a step of its removal: at most [`CHUNK_ROWS`], or all that
/// are left in the last step. A row of the file makes at most one written row.
pub(super) async fn delete_step(
    connection: &mut PgConnection,
    number: i64,
    is_last: bool,
) -> sqlx::Result<()> {
    if is_last {
        return delete(connection, number).await;
    }
    sqlx::query(DELETE_NEXT)
        .bind(number)
        .bind(CHUNK_ROWS - 1)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the written rows of all uploads of a dataset. They cannot be undone any more.
pub(super) async fn delete_of_dataset(
    connection: &mut PgConnection,
    dataset: &DatasetKey,
) -> sqlx::Result<()> {
    for statement in DELETE_OF_DATASET {
        sqlx::query(statement)
            .bind(dataset.tenant.as_str())
            .bind(dataset.name.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table whose primary key has two columns. The database makes the values of the first one.
    fn identity(names: &[String; 3]) -> RowIdentity {
        let [made, key, value] = names.clone();
        let text = || "text".to_owned();
        RowIdentity {
            key: vec![(made, "bigint".to_owned()), (key.clone(), text())],
            columns: TableColumns {
                names: vec![key, value],
                types: vec![text(), "numeric(5,2)".to_owned()],
            },
        }
    }

    fn names() -> [String; 3] {
        ["id", "a\"b", "price"].map(String::from)
    }

    const KEY_TEXTS: &str = "ARRAY[t.\"id\"::text, t.\"a\"\"b\"::text] AS key";
    const DIGEST: &str =
        "sha256(convert_to(ROW(t.\"a\"\"b\"::text, t.\"price\"::text)::text, 'UTF8'))";

    #[test]
    fn an_inserted_row_is_recorded_with_its_key_and_its_digest() {
        let statement = identity(&names()).keep_inserted("INSERT INTO x AS t");
        let start = format!(
            "WITH written AS (INSERT INTO x AS t RETURNING {KEY_TEXTS}, {DIGEST} AS digest)\n"
        );
        assert!(statement.starts_with(&start), "{statement}");
        assert!(statement.contains("SELECT $4, key, digest FROM written"));
    }

    #[test]
    fn a_replaced_row_is_recorded_with_its_previous_values() {
        let statement = identity(&names()).keep_updated("UPDATE x AS t", "m JOIN x AS t");
        let values = "ARRAY[t.\"a\"\"b\"::text, t.\"price\"::text]) AS row FROM m JOIN x AS t)";
        assert!(statement.contains(values), "{statement}");
        let written = format!(
            "written AS (UPDATE x AS t RETURNING m.row_number, {KEY_TEXTS}, {DIGEST} AS digest)"
        );
        assert!(statement.contains(&written), "{statement}");
    }

    #[test]
    fn a_row_is_found_by_its_key_and_by_the_digest_of_the_columns_of_that_time() {
        let mut identity = identity(&names());
        let written = identity.written();
        let expected = format!(
            "t.\"id\"::bigint = (p.key[1])::bigint AND t.\"a\"\"b\"::text = (p.key[2])::text AND {DIGEST} = p.digest"
        );
        assert_eq!(identity.is_as_written(&written), expected);
        identity.columns.names.insert(0, "later".to_owned());
        identity.columns.types.insert(0, "text".to_owned());
        assert_eq!(identity.is_as_written(&written), expected);
    }

    #[test]
    fn rows_are_found_only_in_a_table_with_the_same_key_and_all_columns() {
        let identity = identity(&names());
        let written = || identity.written();
        assert!(identity.has(&written()));
        let mut dropped = written();
        dropped.names.push("dropped".to_owned());
        assert!(!identity.has(&dropped));
        let mut reversed = written();
        reversed.primary_key.reverse();
        assert!(!identity.has(&reversed));
        assert!(!identity.has(&WrittenColumns::default()));
    }

    /// Names of any characters, and names of the characters that mean something in SQL.
    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof!["[^\0]{1,20}", "[\"';\\\\.$%\\-/* \n\té🦀a]{1,20}"]
    }

    /// All statements of a table with these names.
    fn statements(names: &[String; 3]) -> String {
        let identity = identity(names);
        let parts = [
            identity.keep_inserted("INSERT"),
            identity.keep_updated("UPDATE", "m"),
            identity.is_as_written(&identity.written()),
            identity.columns.assignments(),
        ];
        parts.join("; ")
    }

    /// Reads SQL as Postgres does. Returns the quoted names, and the SQL with empty names.
    fn without_names(sql: &str) -> (Vec<String>, String) {
        let (mut names, mut rest) = (Vec::new(), String::new());
        let mut characters = sql.chars().peekable();
        while let Some(character) = characters.next() {
            rest.push(character);
            if character != '"' {
                continue;
            }
            let mut name = String::new();
            while let Some(character) = characters.next() {
                if character != '"' {
                    name.push(character);
                } else if characters.next_if_eq(&'"').is_some() {
                    name.push('"');
                } else {
                    break;
                }
            }
            names.push(name);
        }
        (names, rest)
    }

    proptest! {
        #[test]
        fn names_of_columns_stay_inside_their_quotes(
            given in [any_name(), any_name(), any_name()],
        ) {
            let plain = ["x", "y", "z"].map(String::from);
            let (read, rest) = without_names(&statements(&given));
            let (read_plain, rest_plain) = without_names(&statements(&plain));
            prop_assert_eq!(rest, rest_plain);
            let expected = read_plain.iter().map(|name| {
                let index = plain.iter().position(|other| other == name);
                index.map(|index| given[index].clone())
            });
            let expected: Option<Vec<String>> = expected.collect();
            prop_assert_eq!(Some(read), expected);
        }
    }
}
