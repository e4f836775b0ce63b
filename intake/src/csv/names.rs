//! Repairs the names in a header: columns without a name, names that repeat, and headers with more
//! or fewer names than the rows have fields.

use std::collections::{HashMap, HashSet};

use carga_common::upload::Renamed;

use super::detect::{Index, Layout, Sample};
use super::fault::FileFault;
use super::syntax::Syntax;

/// What happens to a header whose names cannot be used as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// The names are repaired, and the dialect tells each change.
    #[default]
    Repair,
    /// The file is refused.
    Strict,
}

/// The names in one CSV record. `None` if it is not exactly one record with a different name for
/// each column.
pub fn column_names(record: &str) -> Option<Vec<String>> {
    let syntax = Syntax::new(',', Some(b'"'));
    let sample = Sample::split(record.as_bytes(), syntax, true);
    let [names] = sample.records.as_slice() else {
        return None;
    };
    let name = |index| {
        let name = std::str::from_utf8(names.cell(index)).ok()?;
        Some(name.replace("\"\"", "\"")).filter(|name| !name.trim().is_empty())
    };
    let columns: Option<Vec<String>> = (0..names.width()).map(name).collect();
    let columns = columns.filter(|_| !names.is_malformed)?;
    let distinct: HashSet<&String> = columns.iter().collect();
    (distinct.len() == columns.len()).then_some(columns)
}

/// One field of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderCell {
    /// The name; `Err` with its escaped text if it cannot be decoded.
    pub(super) name: Result<String, String>,
    pub(super) is_quoted: bool,
}

impl HeaderCell {
    pub(super) fn given(name: String) -> Self {
        Self {
            name: Ok(name),
            is_quoted: true,
        }
    }
}

/// The columns of a file, with one name for each field of a row.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NamedColumns {
    pub(super) columns: Vec<String>,
    /// How many more fields a row may have if they are empty.
    pub(super) unnamed: usize,
    pub(super) renamed: Vec<Renamed>,
}

/// A name on its way into the table.
#[derive(Debug)]
struct Column {
    /// The number of the field in the header, from 1; 0 if the header has no such field.
    number: usize,
    from: String,
    /// The name without blanks around it.
    name: String,
}

/// The name of a column that has none.
pub(super) fn numbered(number: usize) -> String {
    format!("column_{number}")
}

/// Names the columns. The header's cells are known to be text.
pub(super) fn columns(
    cells: Vec<HeaderCell>,
    names: Names,
    layout: &Layout,
) -> Result<NamedColumns, FileFault> {
    let mut columns: Vec<Column> = cells
        .into_iter()
        .enumerate()
        .map(|(index, cell)| {
            let from = cell.name.unwrap_or_default();
            let name = match names == Names::Repair && !cell.is_quoted {
                true => from.trim().to_owned(),
                false => from.clone(),
            };
            Column {
                number: index + 1,
                from,
                name,
            }
        })
        .collect();
    let mut named = NamedColumns::default();
    drop_unnamed(&mut columns, names, layout, &mut named);
    match names {
        Names::Strict => {
            check_strictly(&columns)?;
            named.columns = columns.into_iter().map(|column| column.name).collect();
        }
        Names::Repair => {
            fit_rows(&mut columns, layout, &mut named);
            repair(columns, &mut named);
        }
    }
    named.renamed.sort_by_key(|renamed| renamed.column);
    Ok(named)
}

/// Drops the columns at the end that have neither a name nor a value. A strict header may have one
/// of them, which is a trailing delimiter. Rows may also have more fields than the header, if these
/// are empty.
fn drop_unnamed(
    columns: &mut Vec<Column>,
    names: Names,
    layout: &Layout,
    named: &mut NamedColumns,
) {
    let names_in_file = columns.len();
    let mut left_out = Vec::new();
    let max = match names {
        Names::Repair => usize::MAX,
        Names::Strict => 1,
    };
    while columns.len() > 1
        && named.unnamed < max
        && let Some(last) = columns.last()
        && last.name.trim().is_empty()
        && layout.is_empty(columns.len() - 1)
    {
        left_out.push(left_out_of(last));
        columns.pop();
        named.unnamed += 1;
    }
    // A single one is a trailing delimiter, which the dialect tells.
    if left_out.len() > 1 {
        named.renamed.append(&mut left_out);
    }
    if let Some(more) = layout.empty_after(names_in_file) {
        named.unnamed += more;
    }
}

fn left_out_of(column: &Column) -> Renamed {
    Renamed {
        column: column.number,
        from: column.from.clone(),
        to: None,
    }
}

fn check_strictly(columns: &[Column]) -> Result<(), FileFault> {
    let mut seen = HashSet::with_capacity(columns.len());
    for Column { number, name, .. } in columns {
        if name.trim().is_empty() {
            let message = format!("column {number} has no name; names=repair names it");
            return Err(FileFault::new("empty_column_name", message));
        }
        if !seen.insert(name) {
            let message = format!(
                "column {number} repeats the name `{name}`; names=repair makes it unique, and header=false reads the first record as a row"
            );
            return Err(FileFault::new("duplicate_column_name", message).in_column(name));
        }
    }
    Ok(())
}

/// Makes the number of names fit the rows, if nearly all rows of the sample agree.
fn fit_rows(columns: &mut Vec<Column>, layout: &Layout, named: &mut NamedColumns) {
    let Some(width) = layout.trusted_width() else {
        return;
    };
    // Rows may have their empty fields without a column, or lack them.
    if (columns.len()..=columns.len() + named.unnamed).contains(&width) {
        return;
    }
    // One delimiter too many in the header makes a name that is empty.
    let is_unnamed = |column: &Column| column.name.is_empty();
    let surplus = columns.len().saturating_sub(width);
    let unnamed = columns.iter().filter(|column| is_unnamed(column)).count();
    if surplus > 0 && unnamed >= surplus {
        // The first name may also be that of an index, whose rows lack a cell at their end.
        if unnamed == surplus && columns.first().is_some_and(is_unnamed) {
            number_all(columns, width, named);
            return;
        }
        for _ in 0..surplus {
            let Some(last) = columns.iter().rposition(is_unnamed) else {
                return;
            };
            named.renamed.push(left_out_of(&columns.remove(last)));
        }
    }
    if columns.len() < width {
        let has_name = columns.first().is_some_and(names_index);
        match layout.index().filter(|_| columns.len() + 1 == width) {
            Some(Index::BeforeTexts) if has_name => columns.push(Column::without_name()),
            Some(index) if !has_name || index == Index::Written => {
                // R's `write.table` and others write the index of the rows without a name.
                columns.insert(0, Column::without_name());
            }
            _ => number_all(columns, width, named),
        }
    }
}

/// Whether a column is named as an index, such as `id` or `No.`.
fn names_index(column: &Column) -> bool {
    const NAMES: [&str; 10] = [
        "id", "no", "nr", "num", "number", "index", "idx", "row", "pos", "#",
    ];
    let name = column.name.trim().trim_end_matches('.').to_lowercase();
    NAMES.contains(&name.as_str())
}

/// Removes all names, because it is unknown which name stands above which values. Numbers are
/// better than wrong names.
fn number_all(columns: &mut Vec<Column>, width: usize, named: &mut NamedColumns) {
    for column in columns.drain(width.min(columns.len())..) {
        named.renamed.push(left_out_of(&column));
    }
    for column in columns.iter_mut() {
        column.name = String::new();
    }
    columns.resize_with(width, Column::without_name);
}

impl Column {
    fn without_name() -> Self {
        Self {
            number: 0,
            from: String::new(),
            name: String::new(),
        }
    }
}

/// Names what has no name, and numbers what repeats.
fn repair(columns: Vec<Column>, named: &mut NamedColumns) {
    let mut taken: HashSet<String> = columns.iter().map(|column| column.name.clone()).collect();
    let mut seen = HashSet::with_capacity(columns.len());
    let mut last_numbers = HashMap::new();
    for (index, column) in columns.into_iter().enumerate() {
        let Column { number, from, name } = column;
        let is_new = !name.is_empty() && seen.insert(name.clone());
        let to = match (is_new, name.is_empty()) {
            (true, _) => name,
            (false, true) => free(&numbered(index + 1), &mut taken, &mut last_numbers),
            (false, false) => free(&name, &mut taken, &mut last_numbers),
        };
        if to != from {
            let column = if number == 0 { index + 1 } else { number };
            let to = Some(to.clone());
            named.renamed.push(Renamed { column, from, to });
        }
        named.columns.push(to);
    }
}

/// The name itself if it is free, or the first free one of `name_2`, `name_3` and so on.
/// `last_numbers` has the last number of each name, so that a name that repeats often costs little.
fn free(
    name: &str,
    taken: &mut HashSet<String>,
    last_numbers: &mut HashMap<String, usize>,
) -> String {
    if taken.insert(name.to_owned()) {
        return name.to_owned();
    }
    let number = last_numbers.entry(name.to_owned()).or_insert(1);
    loop {
        *number += 1;
        let free = format!("{name}_{number}");
        if taken.insert(free.clone()) {
            return free;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(header: &str, rows: &str) -> NamedColumns {
        let cells = header.split(',').map(|name| HeaderCell {
            name: Ok(name.to_owned()),
            is_quoted: false,
        });
        let sample = Sample::split(rows.as_bytes(), Syntax::new(',', Some(b'"')), true);
        columns(
            cells.collect(),
            Names::Repair,
            &Layout::of(&sample.records, sample.syntax, true),
        )
        .unwrap()
    }

    fn renamed(named: &NamedColumns) -> Vec<(usize, &str, Option<&str>)> {
        let renamed = named.renamed.iter();
        renamed
            .map(|it| (it.column, it.from.as_str(), it.to.as_deref()))
            .collect()
    }

    #[test]
    fn columns_without_a_name_are_numbered() {
        let index = named(",a,b", "0,1,2\n1,3,4\n2,5,6\n");
        assert_eq!(index.columns, ["column_1", "a", "b"]);
        assert_eq!(renamed(&index), [(1, "", Some("column_1"))]);
        let taken = named("column_2,,x", "1,2,3\n");
        assert_eq!(taken.columns, ["column_2", "column_2_2", "x"]);
    }

    #[test]
    fn repeated_names_get_a_number() {
        let found = named("x,x_2,x,x", "1,2,3,4\n");
        assert_eq!(found.columns, ["x", "x_2", "x_3", "x_4"]);
        assert_eq!(
            renamed(&found),
            [(3, "x", Some("x_3")), (4, "x", Some("x_4"))]
        );
    }

    #[test]
    fn trailing_columns_with_neither_name_nor_value_are_left_out() {
        let found = named("id,name,,", "1,Ada,,\n2,Eve,,\n3,Bob,,\n");
        assert_eq!((found.columns.len(), found.unnamed), (2, 2));
        assert_eq!(renamed(&found), [(3, "", None), (4, "", None)]);
        let valued = named("id,name,,", "1,Ada,,\n2,Eve,x,\n3,Bob,,\n");
        assert_eq!(valued.columns, ["id", "name", "column_3"]);
    }

    #[test]
    fn a_header_with_one_delimiter_too_many_loses_its_empty_name() {
        let found = named("a,,b,c", "1,2,3\n4,5,6\n7,8,9\n");
        assert_eq!(found.columns, ["a", "b", "c"]);
        assert_eq!(renamed(&found), [(2, "", None)]);
    }

    #[test]
    fn a_header_that_lacks_a_delimiter_gives_no_column_a_wrong_name() {
        let found = named("ab,c", "1,2,3\n4,5,6\n7,8,\n");
        assert_eq!(found.columns, ["column_1", "column_2", "column_3"]);
        let quoted = "\"Mazda\",1,2\n\"Volvo\",3,4\n\"Fiat\",5,NA\n";
        for rows in ["1,x,y\n2,x,y\n3,x,y\n", quoted] {
            assert_eq!(named("a,b", rows).columns, ["column_1", "a", "b"]);
        }
        let r = named("id,score", "\"1\",17,5.5\n\"2\",18,6.5\n\"3\",19,7.5\n");
        assert_eq!(r.columns, ["column_1", "id", "score"]);
        let values = named("id,score", "1,17,5.5\n2,18,6.5\n3,19,7.5\n");
        assert_eq!(values.columns, ["column_1", "column_2", "column_3"]);
        let unquoted = named("a,b", "Norway,5,2020\nSweden,10,2021\nFinland,6,2022\n");
        assert_eq!(unquoted.columns, ["column_1", "column_2", "column_3"]);
        let id = named("id,name", "1,Ada,x\n2,Bob,y\n3,Eve,z\n");
        assert_eq!(id.columns, ["id", "name", "column_3"]);
        let damaged = named(
            ",a,b",
            "0,1,2\n1,3,4\n2,5,6\n3,5,6\n4,5,6\n5,5,6\n6,5,6\n7,5,6\n8,5,6\n9,1,2,\n",
        );
        assert_eq!(damaged.columns, ["column_1", "a", "b"]);
        let short = named(",a,b,c", "0,1,2\n1,3,4\n2,5,6\n");
        assert_eq!(short.columns, ["column_1", "column_2", "column_3"]);
    }

    #[test]
    fn blanks_around_unquoted_names_are_removed() {
        let found = named("id, name", "1,x\n");
        assert_eq!(found.columns, ["id", "name"]);
        assert_eq!(renamed(&found), [(2, " name", Some("name"))]);
    }
}
