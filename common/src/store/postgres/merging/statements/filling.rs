//! The statements that read staged rows into the temporary table.

use super::columns::{Column, Limit};
use super::{MERGED, Names};
use crate::store::violations::Violation;

impl Names {
    /// Makes the temporary table.
    pub(in crate::store::postgres::merging) fn create(&self) -> String {
        let columns = self.columns.iter();
        let columns: String = columns
            .map(|column| format!("{} {}, ", column.name, column.declaration))
            .collect();
        format!(
            r#"CREATE TEMP TABLE carga_merge
               ({columns}row_number bigint NOT NULL, _carga_state "char" NOT NULL DEFAULT 'n') ON COMMIT DROP"#
        )
    }

    /// The numbers of the staged rows. `$1`: the number of the upload.
    pub(in crate::store::postgres::merging) fn staged_rows(&self) -> String {
        format!(
            "SELECT row_number FROM {} WHERE upload = $1 ORDER BY row_number",
            self.source
        )
    }

    /// Reads staged rows. A row with a value that its column does not hold is rejected at once.
    /// `$3`: the number of the upload.
    pub(in crate::store::postgres::merging) fn fill(&self) -> String {
        const ROWS: &str = "upload = $3 AND row_number BETWEEN $1 AND $2";
        let names: String = self
            .column_names()
            .map(|name| format!("{name}, "))
            .collect();
        let unfit: Vec<&str> = self
            .limits()
            .map(|(_, limit)| limit.unfit.as_str())
            .collect();
        if unfit.is_empty() {
            let values = self.columns.iter();
            let values: String = values.map(|column| format!("{}, ", column.value)).collect();
            return format!(
                "INSERT INTO {MERGED} ({names}row_number) SELECT {values}row_number FROM {}
                 WHERE {ROWS}",
                self.source
            );
        }
        let stored = self.columns.iter().map(|column| match &column.limit {
            None => format!("{}, ", column.name),
            Some(limit) => format!("{}, ", limit.stored),
        });
        let stored: String = stored.collect();
        format!(
            r#"INSERT INTO {MERGED} ({names}row_number, _carga_state)
             SELECT {stored}row_number, CASE WHEN {} THEN 'v'::"char" ELSE 'n'::"char" END
             FROM ({}) AS read"#,
            unfit.join(" OR "),
            self.values(self.columns.iter(), ROWS)
        )
    }

    /// Finds the rows with a value that its column does not hold, each with the index of the first
    /// such column. `$1`: the number of the upload. `None` if the columns hold every value.
    pub(in crate::store::postgres::merging) fn find_unfit(&self) -> Option<String> {
        let cases = self.limits();
        let cases: String = cases
            .map(|(index, limit)| format!("WHEN {} THEN {index} ", limit.unfit))
            .collect();
        let limited = self.columns.iter().filter(|column| column.limit.is_some());
        let find = format!(
            "SELECT row_number, place
             FROM (SELECT row_number, CASE {cases}END AS place FROM ({}) AS read) AS checked
             WHERE place IS NOT NULL",
            self.values(limited, "upload = $1")
        );
        (!cases.is_empty()).then_some(find)
    }

    /// Why a row with such a value in the column with this index is rejected.
    pub(in crate::store::postgres::merging) fn reason(&self, index: i32) -> Option<&Violation> {
        let column = self.columns.get(usize::try_from(index).ok()?)?;
        Some(&column.limit.as_ref()?.violation)
    }

    /// The columns that do not hold every value, with their indexes.
    fn limits(&self) -> impl Iterator<Item = (usize, &Limit)> {
        let columns = self.columns.iter().enumerate();
        columns.filter_map(|(index, column)| Some((index, column.limit.as_ref()?)))
    }

    /// The values of staged rows in these columns. OFFSET makes Postgres evaluate each value once,
    /// although several expressions need it.
    fn values<'a>(&self, columns: impl Iterator<Item = &'a Column>, rows: &str) -> String {
        let values = columns.map(|column| {
            let name = match &column.limit {
                None => &column.name,
                Some(limit) => &limit.value_name,
            };
            format!("{} AS {name}, ", column.value)
        });
        let values: String = values.collect();
        let source = self.source;
        format!("SELECT {values}row_number FROM {source} WHERE {rows} OFFSET 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ColumnType, TypedColumn};

    fn column(index: usize, name: &str, kind: ColumnType) -> Column {
        let name = name.to_owned();
        Column::own(index, &TypedColumn { name, kind })
    }

    fn names(columns: Vec<Column>) -> Names {
        Names {
            table: "datasets.\"sales\"".to_owned(),
            source: "landing",
            notes_changes: false,
            is_own: true,
            key: Vec::new(),
            columns,
        }
    }

    /// A column of type `varchar(3)`.
    fn limited(index: usize, name: &str) -> Column {
        let value_name = format!("_carga_{}", index + 1);
        let unfit = format!("char_length({value_name}) > 3");
        Column {
            declaration: "varchar(3)".to_owned(),
            limit: Some(Limit {
                stored: format!("CASE WHEN {unfit} THEN NULL ELSE {value_name}::varchar(3) END"),
                value_name,
                unfit,
                violation: Violation {
                    code: "out_of_range",
                    message: "too long".to_owned(),
                    column: Some(name.to_owned()),
                    constraint: None,
                },
            }),
            ..column(index, name, ColumnType::Text)
        }
    }

    #[test]
    fn the_temporary_table_takes_the_typed_values_of_the_texts() {
        let columns = vec![
            column(0, "sku", ColumnType::Text),
            column(2, "p", ColumnType::Numeric),
        ];
        let names = names(columns);
        let fill = "INSERT INTO pg_temp.carga_merge (\"sku\", \"p\", row_number) \
                    SELECT fields[1]::text, fields[3]::numeric, row_number FROM landing";
        assert!(names.fill().starts_with(fill), "{}", names.fill());
        let columns = "(\"sku\" text, \"p\" numeric, row_number bigint NOT NULL, ";
        assert!(names.create().contains(columns), "{}", names.create());
        assert_eq!(names.find_unfit(), None);
    }

    #[test]
    fn a_value_that_a_column_does_not_hold_rejects_its_row() {
        let columns = vec![
            column(0, "p", ColumnType::Numeric),
            limited(1, "a"),
            limited(2, "b"),
        ];
        let names = names(columns);
        let fill = names.fill();
        for part in [
            "SELECT \"p\", CASE WHEN char_length(_carga_2) > 3 THEN NULL ELSE _carga_2::varchar(3) END, CASE ",
            "CASE WHEN char_length(_carga_2) > 3 OR char_length(_carga_3) > 3 THEN 'v'::\"char\" ELSE ",
            "SELECT fields[1]::numeric AS \"p\", fields[2]::text AS _carga_2, fields[3]::text AS _carga_3, ",
        ] {
            assert!(fill.contains(part), "{fill}");
        }
        let find = names.find_unfit().unwrap();
        for part in [
            "CASE WHEN char_length(_carga_2) > 3 THEN 1 WHEN char_length(_carga_3) > 3 THEN 2 END AS place",
            "FROM (SELECT fields[2]::text AS _carga_2, fields[3]::text AS _carga_3, row_number FROM landing ",
        ] {
            assert!(find.contains(part), "{find}");
        }
        let column = |index| names.reason(index)?.column.clone();
        assert_eq!(
            [0, 1, 2, 3].map(column),
            [None, Some("a"), Some("b"), None].map(|it| it.map(str::to_owned))
        );
    }
}
