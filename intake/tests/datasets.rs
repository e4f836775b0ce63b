//! The promises about the rows of a file for a dataset: its columns are found in the header, every
//! row is converted or rejected, and a rejected row keeps the text and the names of the file.

#![allow(clippy::unwrap_used)]

mod limits;

use carga_common::dataset::Definition;
use carga_common::rejects::RejectedRow;
use carga_common::typed::usual_text;
use carga_intake::csv::{Charset, CsvOpening, CsvOptions, CsvReader, Next, Position};
use carga_intake::matching::{Matching, UnknownColumns, match_columns};
use carga_intake::options::Options;
use carga_intake::refusal::Refusal;
use carga_intake::typed::Converter;

use self::limits::LIMITS;

const SALES: &str = r#"{ "columns": [
    { "name": "sku", "type": "text", "required": true, "from": ["código"] },
    { "name": "price", "type": "numeric", "decimal": "," },
    { "name": "sold_on", "type": "date", "format": "%d/%m/%Y" }
] }"#;

/// The rows of a file, in the order of the definition, and those that are rejected.
#[derive(Debug, Default)]
struct Converted {
    rows: Vec<Vec<Option<String>>>,
    rejected: Vec<RejectedRow>,
}

/// The options of a file with a header, of which nothing is detected.
fn separated_by(delimiter: char) -> CsvOptions {
    CsvOptions {
        delimiter: Some(delimiter),
        quote: Some(Some(b'"')),
        escape: Some(None),
        encoding: Some(Charset::UTF_8),
        skip: Some(0),
        header: Some(true),
        ..CsvOptions::default()
    }
}

fn definition(json: &str) -> Definition {
    Definition::from_json(json.as_bytes()).unwrap()
}

fn opened(file: &str, options: CsvOptions) -> CsvReader {
    let mut opening = CsvOpening::new(options, LIMITS);
    opening.push(file.as_bytes());
    opening.end();
    let opened = opening.open().unwrap();
    opened.unwrap_or_else(|| panic!("no header"))
}

/// Matches the columns of a file, without those that the dataset does not have.
fn matched(definition: &Definition, reader: &CsvReader) -> Result<Matching, Refusal> {
    let (columns, renamed) = (reader.columns(), &reader.dialect().renamed);
    match_columns(definition, columns, renamed, UnknownColumns::Ignore)
}

/// Reads a file as the intake does for an upload with the dataset of the sales.
fn converted(file: &str, options: CsvOptions) -> Converted {
    converted_by(&definition(SALES), file, options)
}

/// Reads a file as the intake does for an upload with a dataset.
fn converted_by(definition: &Definition, file: &str, options: CsvOptions) -> Converted {
    let mut reader = opened(file, options);
    let matching = matched(definition, &reader).unwrap();
    let mut converter = Converter::new(definition, &matching.sources, reader.columns().len());
    let mut converted = Converted::default();
    loop {
        match reader.next().unwrap() {
            Next::Row => match converter.convert(reader.cells()) {
                Ok(()) => {
                    let cells = converter.cells().map(|cell| cell.map(str::to_owned));
                    converted.rows.push(cells.collect());
                }
                Err(fault) => {
                    let rejection = reader.reject_cell(fault.column, fault.code, fault.message);
                    converted.rejected.push(rejection.row);
                }
            },
            Next::Rejected(rejection) => converted.rejected.push(rejection.row),
            Next::More | Next::End => return converted,
        }
    }
}

/// Code, column and fields of a rejected row.
fn reason(row: &RejectedRow) -> (&str, Option<&str>, Vec<&str>) {
    let fields = row.fields.iter().flatten().map(String::as_str);
    (&row.code, row.column.as_deref(), fields.collect())
}

#[test]
fn rows_are_converted_in_the_order_of_the_definition() {
    let file = "note;Sold on;Price;CÓDIGO\nx;31/12/2026;9,50;A1\ny;;;007\n";
    let Converted { rows, rejected } = converted(file, separated_by(';'));
    let cells: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(Option::as_deref).collect())
        .collect();
    let first = [Some("A1"), Some("9.50"), Some("2026-12-31")];
    assert_eq!(cells, [first, [Some("007"), None, None]]);
    assert!(rejected.is_empty(), "{rejected:?}");
}

#[test]
fn a_row_with_a_faulty_cell_is_rejected_with_the_names_and_the_text_of_the_file() {
    let file = "note;Sold on;Price;CÓDIGO\nx;31/12/2026;9.50;A1\ny;;1,00;\nz;;1,00;A3\n";
    let Converted { rows, rejected } = converted(file, separated_by(';'));
    let [price, sku] = &rejected[..] else {
        panic!("{rejected:?}");
    };
    let fields = vec!["x", "31/12/2026", "9.50", "A1"];
    assert_eq!(reason(price), ("wrong_type", Some("Price"), fields));
    let fields = vec!["y", "", "1,00", ""];
    assert_eq!(reason(sku), ("missing_value", Some("CÓDIGO"), fields));
    assert_eq!((price.row, price.line, sku.row, sku.line), (1, 2, 2, 3));
    assert_eq!(rows.len(), 1);
}

#[test]
fn a_cell_that_a_short_row_lacks_is_null_or_rejects_the_row() {
    let options = CsvOptions {
        pad_short_rows: true,
        ..separated_by(',')
    };
    let Converted { rows, rejected } = converted("sku,price\nA1\nA2,\n", options.clone());
    let skus: Vec<_> = rows.iter().map(|row| row[0].as_deref()).collect();
    assert_eq!(skus, [Some("A1"), Some("A2")]);
    assert!(rows.iter().all(|row| row[1].is_none() && row[2].is_none()));
    assert!(rejected.is_empty(), "{rejected:?}");
    let Converted { rows, rejected } = converted("sold_on,sku\n01/02/2026\n", options);
    assert!(rows.is_empty(), "{rows:?}");
    let fields = vec!["01/02/2026"];
    assert_eq!(reason(&rejected[0]), ("missing_value", Some("sku"), fields));
}

#[test]
fn the_cells_of_a_file_are_read_with_the_options_of_its_upload() {
    let sales = definition(
        r#"{ "columns": [
            { "name": "sku", "type": "text", "null": ["-"] },
            { "name": "price", "type": "numeric" },
            { "name": "weight", "type": "float", "decimal": "." },
            { "name": "sold_on", "type": "date" },
            { "name": "packed_on", "type": "date", "format": "%d.%m.%Y" }
        ] }"#,
    );
    let file = "sku;price;weight;sold_on;packed_on\n-;9,50;0.25;31/12/2026;30.12.2026\nNA;;;NA;\n";
    let without = converted_by(&sales, file, separated_by(';'));
    let columns = without.rejected.iter().map(|row| row.column.as_deref());
    let columns: Vec<_> = columns.collect();
    assert_eq!(columns, [Some("price"), Some("sold_on")]);

    let query = [
        ("dataset", "sales"),
        ("null", "NA"),
        ("null", ""),
        ("decimal", ","),
        ("date_format", "%d/%m/%Y"),
    ];
    let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = Options::from_query(&query).unwrap();
    let effective = options.effective_definition(&sales).unwrap();
    assert_eq!(effective.typed_columns(), sales.typed_columns());
    let Converted { rows, rejected } = converted_by(&effective, file, separated_by(';'));
    let cells: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(Option::as_deref).collect())
        .collect();
    let first = [
        None,
        Some("9.50"),
        Some("0.25"),
        Some("2026-12-31"),
        Some("2026-12-30"),
    ];
    assert_eq!(cells, [first, [Some("NA"), None, None, None, None]]);
    assert!(rejected.is_empty(), "{rejected:?}");
}

/// The cells of a row of the file, from the values of the dataset and the changed cells. A worker
/// restores a row that violates a constraint in the same way.
fn restored(definition: &Definition, matching: &Matching, converter: &Converter) -> Vec<String> {
    let mut cells = vec![String::new(); 4];
    let columns = definition.typed_columns();
    let values = matching.sources.iter().zip(converter.cells());
    for ((source, value), column) in values.zip(&columns) {
        if let (Some(source), Some(value)) = (source, value) {
            cells[*source] = usual_text(column.kind, value).into_owned();
        }
    }
    for (column, text) in converter.changed() {
        cells[column as usize] = text.to_owned();
    }
    cells
}

#[test]
fn the_text_and_the_position_of_a_row_can_be_restored_after_its_conversion() {
    let definition = definition(SALES);
    let rows = "x;31/12/2026;9,50;A1\n\n\"a\nb\";;7;é\n;01/02/2026; 1,5 ;C\n";
    let file = format!("note;Sold on;Price;CÓDIGO\n{rows}");
    let mut reader = opened(&file, separated_by(';'));
    let matching = matched(&definition, &reader).unwrap();
    let mut converter = Converter::new(&definition, &matching.sources, 4);
    let mut positions = Vec::new();
    while let Next::Row = reader.next().unwrap() {
        converter.convert(reader.cells()).unwrap();
        let cells: Vec<String> = reader.cells().map(str::to_owned).collect();
        assert_eq!(restored(&definition, &matching, &converter), cells);
        let Position { line, offset } = reader.position();
        positions.push((line, &file[offset as usize..][..3]));
    }
    assert_eq!(positions, [(2, "x;3"), (4, "\"a\n"), (6, ";01")]);
}

#[test]
fn a_corrected_reject_report_is_read_for_the_same_dataset() {
    let report = "sku,price,_carga_row,_carga_column,_carga_code\nA1,\"9,50\",1,price,wrong_type\nA2,x,2,price,wrong_type\n";
    let Converted { rows, rejected } = converted(report, separated_by(','));
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0][1].as_deref(), Some("9.50"));
    let fields = vec!["A2", "x"];
    assert_eq!(reason(&rejected[0]), ("wrong_type", Some("price"), fields));
}

#[test]
fn a_required_cell_that_a_report_lacks_is_rejected_again_until_it_is_filled() {
    // An empty cell is a value, so only the report tells that the cell was missing.
    let notes = r#"{ "null": ["NA"], "columns": [
        { "name": "id", "type": "integer" },
        { "name": "note", "type": "text", "required": true }
    ] }"#;
    let notes = definition(notes);
    let short = CsvOptions {
        pad_short_rows: true,
        ..separated_by(',')
    };
    let first = converted_by(&notes, "id,note\n1\n2,\n", short);
    assert_eq!(first.rows, [[Some("2".to_owned()), Some(String::new())]]);
    let missing = ("missing_value", Some("note"), vec!["1"]);
    assert_eq!(reason(&first.rejected[0]), missing);

    let report = |note: &str, code: &str| {
        format!("id,note,_carga_row,_carga_column,_carga_code\n1,{note},1,note,{code}\n")
    };
    let sent_again = |note: &str, code: &str| {
        let report = report(note, code);
        converted_by(&notes, &report, separated_by(','))
    };
    let uncorrected = sent_again("", "missing_value");
    let [row] = &uncorrected.rejected[..] else {
        panic!("{uncorrected:?}");
    };
    assert_eq!(reason(row), ("missing_value", Some("note"), vec!["1", ""]));
    assert!(row.message.contains("not corrected"), "{}", row.message);
    for (note, code) in [("text", "missing_value"), ("", ""), ("", "wrong_type")] {
        let corrected = sent_again(note, code);
        assert_eq!(corrected.rows[0][1].as_deref(), Some(note), "{code}");
    }
}

#[test]
fn columns_that_the_file_names_alike_are_refused() {
    let two_prices = r#"{ "columns": [
        { "name": "sku", "type": "text" },
        { "name": "price", "type": "numeric" },
        { "name": "price_2", "type": "numeric" }
    ] }"#;
    let two_prices = definition(two_prices);
    let repeated = opened("sku;price;price\nA1;1;2\n", separated_by(';'));
    assert_eq!(repeated.columns(), ["sku", "price", "price_2"]);
    let refusal = matched(&two_prices, &repeated).unwrap_err();
    assert_eq!(refusal.failure.code, "columns_do_not_match");
    let message = refusal.failure.message;
    assert!(message.contains("2 columns `price`"), "{message}");

    let different = opened("sku;price;price_2\nA1;1;2\n", separated_by(';'));
    let matching = matched(&two_prices, &different).unwrap();
    assert_eq!(matching.sources, [Some(0), Some(1), Some(2)]);
}

#[test]
fn the_number_of_a_column_without_a_name_may_be_its_name() {
    let numbered = r#"{ "columns": [
        { "name": "sku", "type": "text" },
        { "name": "price", "type": "numeric", "from": ["column_2"] }
    ] }"#;
    let reader = opened("sku;\nA1;1\n", separated_by(';'));
    let matching = matched(&definition(numbered), &reader).unwrap();
    assert_eq!(matching.sources, [Some(0), Some(1)]);
}

#[test]
fn a_file_of_another_dataset_is_refused() {
    let optional = SALES.replace("true", "false");
    for (file, header) in [
        ("name;city\nAda;Faro\n", Some(true)),
        ("A1;9,50;31/12/2026\n", Some(false)),
    ] {
        let options = CsvOptions {
            header,
            ..separated_by(';')
        };
        let refused = matched(&definition(&optional), &opened(file, options));
        let message = refused.unwrap_err().failure.message;
        assert!(message.contains("the file has none of them"), "{message}");
    }
}

#[test]
fn a_header_that_does_not_fit_the_rows_is_named_in_the_refusal() {
    let file = "id;price\n1;17;5.5\n2;18;6.5\n3;19;7.5\n";
    let reader = opened(file, separated_by(';'));
    assert_eq!(reader.columns(), ["column_1", "column_2", "column_3"]);
    let refused = matched(&definition(SALES), &reader);
    let message = refused.unwrap_err().failure.message;
    assert!(message.contains("its names were not used"), "{message}");
}
