//! Reads rows of datasets back. Each value becomes its canonical text again.

use sqlx::{Connection, PgConnection, Postgres};

use super::{READ_BY_INDEX, Row, stored_row};
use crate::dataset::{ColumnType, TypedColumn, quote_identifier};
use crate::store::StoredRow;
use crate::store::paging::{Found, LedgerRange};
use crate::store::postgres::datasets;
use crate::store::sql::signed;
use crate::upload::{UploadDataset, UploadId};

/// Makes the text of a float exact, whatever the default of the database or the role is.
const EXACT_FLOATS: &str = "SELECT set_config('extra_float_digits', '1', true)";

/// Whether an upload keeps its rows. `$1`: the id.
const KEEPS_ROWS: &str = "SELECT EXISTS (
    SELECT FROM uploads
    WHERE id = $1 AND status IN ('completed', 'partial') AND expired_at IS NULL)";

/// The rows of a page.
pub(super) async fn rows(
    connection: &mut PgConnection,
    id: UploadId,
    dataset: &UploadDataset,
    range: &LedgerRange,
) -> sqlx::Result<Found> {
    let mut transaction = connection.begin().await?;
    for setting in [READ_BY_INDEX, EXACT_FLOATS] {
        sqlx::query(setting).execute(&mut *transaction).await?;
    }
    let page = page(dataset);
    let found = sqlx::query_as::<Postgres, Row>(&page)
        .persistent(false)
        .bind(id.as_uuid())
        .bind(signed(range.first_row))
        .bind(signed(range.last_row))
        .bind(signed(range.rows))
        .fetch_all(&mut *transaction)
        .await?;
    // The status is read after the rows. If the upload keeps its rows now, it kept them then.
    let keeps_rows: bool = sqlx::query_scalar(KEEPS_ROWS)
        .bind(id.as_uuid())
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    if !keeps_rows {
        return Ok(Found::Removed);
    }
    let mut rows: Vec<StoredRow> = found
        .into_iter()
        .map(stored_row)
        .collect::<Result<_, _>>()?;
    rewrite_floats(&mut rows, &dataset.columns);
    Ok(Found::Dataset(rows))
}

/// The statement for one page. `$1` to `$4`: id of the upload, first and last row number, count of
/// rows.
fn page(dataset: &UploadDataset) -> String {
    let cells: Vec<String> = dataset.columns.iter().map(cell).collect();
    format!(
        "SELECT row_number, ARRAY[{}]::text[] FROM {}
         WHERE upload_id = $1 AND row_number BETWEEN $2 AND $3
         ORDER BY row_number LIMIT $4",
        cells.join(", "),
        datasets::table_of(dataset)
    )
}

/// The text of a value. Dates and times do not depend on settings of the session, such as
/// `DateStyle`.
fn cell(column: &TypedColumn) -> String {
    let name = quote_identifier(&column.name);
    match column.kind {
        ColumnType::Text => name,
        // A date would otherwise become a time of the session's zone, and some zones skip midnight
        // on some days.
        ColumnType::Date => format!("to_char({name}::timestamp, 'YYYY-MM-DD')"),
        ColumnType::Timestamp => {
            format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        }
        ColumnType::Integer
        | ColumnType::Numeric
        | ColumnType::Float
        | ColumnType::Boolean
        | ColumnType::Uuid
        | ColumnType::Json => format!("{name}::text"),
    }
}

/// Postgres writes the same shortest digits of a float as Rust does, but another form of exponent,
/// and whole numbers without a point.
fn rewrite_floats(rows: &mut [StoredRow], columns: &[TypedColumn]) {
    let numbered = columns.iter().enumerate();
    let floats = numbered.filter(|(_, column)| column.kind == ColumnType::Float);
    let floats: Vec<usize> = floats.map(|(index, _)| index).collect();
    for row in rows {
        for index in &floats {
            if let Some(Some(cell)) = row.fields.get_mut(*index)
                && let Ok(value) = cell.parse::<f64>()
            {
                *cell = format!("{value:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::RejectLimit;

    fn column(name: &str, kind: ColumnType) -> TypedColumn {
        let name = name.to_owned();
        TypedColumn { name, kind }
    }

    #[test]
    fn a_page_reads_every_column_as_text() {
        let columns = vec![
            column("sku", ColumnType::Text),
            column("a\"b", ColumnType::Numeric),
            column("sold on", ColumnType::Date),
            column("at", ColumnType::Timestamp),
        ];
        let dataset = UploadDataset {
            name: "sales".parse().unwrap(),
            tenant: Default::default(),
            columns,
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: Vec::new(),
            reject_limit: RejectLimit::default(),
            merge: None,
            table: None,
        };
        let page = page(&dataset);
        let start = "SELECT row_number, ARRAY[\"sku\", \"a\"\"b\"::text, \
                     to_char(\"sold on\"::timestamp, 'YYYY-MM-DD'), \
                     to_char(\"at\" AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')]::text[] \
                     FROM datasets.\"sales\"\n";
        assert!(page.starts_with(start), "{page}");
    }

    #[test]
    fn a_float_is_read_back_in_its_canonical_form() {
        let columns = [
            column("a", ColumnType::Text),
            column("b", ColumnType::Float),
        ];
        for (found, canonical) in [
            ("1", "1.0"),
            ("0.1", "0.1"),
            ("-2.5", "-2.5"),
            ("1e+16", "1e16"),
            ("1.5e-07", "1.5e-7"),
            ("0.0001", "0.0001"),
        ] {
            let mut rows = [StoredRow {
                row_number: 1,
                fields: vec![Some("1".to_owned()), Some(found.to_owned())],
            }];
            rewrite_floats(&mut rows, &columns);
            let expected = [Some("1".to_owned()), Some(canonical.to_owned())];
            assert_eq!(rows[0].fields, expected);
        }
    }
}
