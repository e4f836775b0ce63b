//! The promises about rows that are rejected because a cell is not of its column's type: they are
//! reported with the name of the column and with their cells, like any other rejected row.

use carga_common::rejects::RejectedRow;
use carga_intake::csv::{CsvOpening, CsvOptions, FileFault, Next};

use crate::limits::LIMITS;
use crate::outcome::utf8;

/// Rejects the last cell of every row, and returns the rejected rows.
fn rejected(file: &str, options: CsvOptions) -> Result<Vec<RejectedRow>, FileFault> {
    let mut opening = CsvOpening::new(options, LIMITS);
    opening.push(file.as_bytes());
    opening.end();
    let Some(mut reader) = opening.open()? else {
        panic!("the file has no header");
    };
    let last = reader.columns().len() - 1;
    let mut rejected = Vec::new();
    loop {
        match reader.next()? {
            Next::Row => {
                let message = "expected an integer".to_owned();
                rejected.push(reader.reject_cell(last, "wrong_type", message).row);
            }
            Next::Rejected(rejection) => panic!("{rejection:?}"),
            Next::More | Next::End => return Ok(rejected),
        }
    }
}

fn fields(row: &RejectedRow) -> Vec<&str> {
    let fields = row.fields.iter().flatten();
    fields.map(String::as_str).collect()
}

#[test]
fn a_faulty_cell_is_reported_with_its_column_and_the_cells_of_its_row() {
    let rows = rejected("a,b\n1,\"say \"\"x\"\"\"\n2,y\n", utf8()).unwrap();
    let [first, second] = &rows[..] else {
        panic!("{rows:?}");
    };
    let reason = (first.code.as_str(), first.message.as_str());
    assert_eq!(reason, ("wrong_type", "expected an integer"));
    assert_eq!((first.row, first.line, first.offset), (1, 2, 4));
    assert_eq!((second.row, second.line, second.offset), (2, 3, 18));
    assert_eq!(first.column.as_deref(), Some("b"));
    assert_eq!(fields(first), ["1", "say \"x\""]);
    assert_eq!(first.raw, None);
}

#[test]
fn the_columns_of_a_reject_report_are_not_counted() {
    let report = "_carga_row,a,_carga_line,b,_carga_code\n7,1,8,x,wrong_type\n";
    let rows = rejected(report, utf8()).unwrap();
    assert_eq!(rows[0].column.as_deref(), Some("b"));
    assert_eq!(fields(&rows[0]), ["1", "x"]);
}

#[test]
fn a_cell_that_the_row_lacks_is_reported_with_its_column() {
    let options = CsvOptions {
        pad_short_rows: true,
        ..utf8()
    };
    let rows = rejected("a,b,c\n1\n", options).unwrap();
    assert_eq!(rows[0].column.as_deref(), Some("c"));
    assert_eq!(fields(&rows[0]), ["1"]);
}

#[test]
fn blank_lines_above_the_first_record_are_reported_as_the_rows_that_they_are() {
    let options = CsvOptions {
        header: Some(false),
        ..utf8()
    };
    for (file, line_end) in [("\n\nx\n\ny\n", 1), ("\r\n\r\nx\r\n\r\ny\r\n", 2)] {
        let rows = rejected(file, options.clone()).unwrap();
        let cells: Vec<_> = rows.iter().map(fields).collect();
        assert_eq!(cells, [[""], [""], ["x"], [""], ["y"]]);
        let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
        let offsets: Vec<u64> = rows.iter().map(|row| row.offset).collect();
        let above = [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)];
        assert_eq!(
            offsets,
            above.map(|(ends, letters)| ends * line_end + letters)
        );
    }
}
