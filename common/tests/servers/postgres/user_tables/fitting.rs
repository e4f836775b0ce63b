//! Values that a column would change or refuse are rejected, and no value changes.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{Definition, Mode};

use super::{File, Shop, definition};

/// Before Postgres 15, the scale of a numeric is at most its precision.
const TABLE: &str = "
    CREATE TYPE shop.color AS ENUM ('red', 'green');
    CREATE DOMAIN shop.cost AS numeric(4, 1);
    CREATE DOMAIN shop.amount AS shop.cost;
    CREATE DOMAIN shop.tint AS shop.color;
    CREATE TABLE shop.prices (
        number integer PRIMARY KEY,
        small smallint, medium integer, price numeric(5,2), whole numeric(3), tiny numeric(3,5),
        code varchar(3), fixed char(3), seconds timestamp(0), milli timestamptz(3),
        cost shop.cost, amount shop.amount, color shop.color, tint shop.tint, note jsonb)";

const COLUMNS: [(&str, &str); 15] = [
    ("number", "integer"),
    ("small", "integer"),
    ("medium", "integer"),
    ("price", "numeric"),
    ("whole", "integer"),
    ("tiny", "numeric"),
    ("code", "text"),
    ("fixed", "text"),
    ("seconds", "timestamp"),
    ("milli", "timestamp"),
    ("cost", "numeric"),
    ("amount", "numeric"),
    ("color", "text"),
    ("tint", "text"),
    ("note", "json"),
];

/// A column, values that it holds, and values that it does not hold.
struct Case {
    column: &'static str,
    /// The type in messages.
    type_name: &'static str,
    /// Values, each with its text in the table.
    fit: &'static [(&'static str, &'static str)],
    unfit: &'static [&'static str],
}

const CASES: [Case; 13] = [
    Case {
        column: "small",
        type_name: "smallint",
        fit: &[("32767", "32767"), ("-32768", "-32768")],
        unfit: &["32768", "-32769", "9223372036854775807"],
    },
    Case {
        column: "medium",
        type_name: "integer",
        fit: &[("2147483647", "2147483647"), ("-2147483648", "-2147483648")],
        unfit: &["2147483648", "-2147483649"],
    },
    Case {
        column: "price",
        type_name: "numeric(5,2)",
        fit: &[
            ("999.99", "999.99"),
            ("-999.99", "-999.99"),
            ("0.1", "0.10"),
            ("1.5000", "1.50"),
        ],
        unfit: &[
            "1000",
            "-1000",
            "0.001",
            "999.994",
            "999.995",
            "10000000000000000000000",
        ],
    },
    Case {
        column: "whole",
        type_name: "numeric(3,0)",
        fit: &[("999", "999"), ("-999", "-999")],
        unfit: &["1000", "-1000"],
    },
    Case {
        column: "tiny",
        type_name: "numeric(3,5)",
        fit: &[("0.00999", "0.00999"), ("-0.00001", "-0.00001")],
        unfit: &["0.01", "-0.01", "0.000001", "1"],
    },
    Case {
        column: "code",
        type_name: "character varying(3)",
        fit: &[("abc", "abc"), ("éçã", "éçã"), ("a  ", "a  "), ("", "")],
        unfit: &["abcd", "abc "],
    },
    Case {
        column: "fixed",
        type_name: "character(3)",
        fit: &[("abc", "abc"), ("éç", "éç"), ("", "")],
        unfit: &["abcd", "abc "],
    },
    Case {
        column: "seconds",
        type_name: "timestamp(0) without time zone",
        fit: &[("2024-02-29T12:00:59.000000Z", "2024-02-29 12:00:59")],
        unfit: &["2024-02-29T12:00:59.400000Z", "2024-02-29T12:00:59.600000Z"],
    },
    Case {
        column: "milli",
        type_name: "timestamp(3) with time zone",
        fit: &[("2024-02-29T12:00:59.123000Z", "2024-02-29 12:00:59.123+00")],
        unfit: &["2024-02-29T12:00:59.123400Z", "2024-02-29T12:00:59.000001Z"],
    },
    Case {
        column: "cost",
        type_name: "shop.cost, which is numeric(4,1)",
        fit: &[("999.9", "999.9")],
        unfit: &["999.95", "1000", "0.01"],
    },
    Case {
        column: "amount",
        type_name: "shop.amount, which is numeric(4,1)",
        fit: &[("999.9", "999.9")],
        unfit: &["999.95", "1000"],
    },
    Case {
        column: "color",
        type_name: "shop.color",
        fit: &[("red", "red"), ("green", "green")],
        unfit: &["pink", "RED", "red ", ""],
    },
    Case {
        column: "tint",
        type_name: "shop.tint, which is shop.color",
        fit: &[("red", "red")],
        unfit: &["pink"],
    },
];

async fn open() -> Result<(Shop, Definition)> {
    let shop = Shop::open(TABLE).await?;
    let definition = definition(&COLUMNS, &["number"])?;
    shop.declare(&definition).await?;
    Ok((shop, definition))
}

async fn check(shop: &Shop, definition: &Definition, case: &Case) -> Result<()> {
    let fit = case.fit.iter().map(|(value, _)| *value);
    let values: Vec<&str> = fit.chain(case.unfit.iter().copied()).collect();
    let numbers: Vec<String> = (1..=values.len())
        .map(|number| number.to_string())
        .collect();
    let numbers = numbers.iter().map(String::as_str);
    let rows: Vec<[&str; 2]> = numbers.zip(values).map(Into::into).collect();
    let file = File::new(["number", case.column], &rows);
    for mode in [Mode::Append, Mode::Ignore, Mode::Update] {
        shop.execute("DELETE FROM shop.prices").await?;
        let expected = [case.fit.len(), 0, 0, case.unfit.len()];
        let upload = shop.merge(definition, mode, &file, expected).await?;
        let stored = format!(
            "SELECT {}::text FROM shop.prices ORDER BY number",
            case.column
        );
        let texts = case.fit.iter().map(|(_, text)| *text);
        let stored = shop.texts(&stored).await?;
        ensure!(texts.eq(stored.iter().map(String::as_str)), "{stored:?}");
        let rejected = shop.rejected(upload.id).await?;
        let is_enum = case.type_name.ends_with("shop.color");
        let (code, message) = match is_enum {
            true => ("wrong_type", "the value is not one of"),
            false => ("out_of_range", "the value does not fit"),
        };
        let message = format!("{message} {}", case.type_name);
        for (row, value) in rejected.iter().zip(case.unfit) {
            ensure!(row.code == code && row.message == message, "{row:?}");
            ensure!(row.column.as_deref() == Some(case.column), "{row:?}");
            let cells = row.fields.iter().flatten().map(String::as_str);
            ensure!(cells.skip(1).eq([*value]), "{row:?}");
        }
        ensure!(rejected.len() == case.unfit.len(), "{rejected:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_value_that_a_column_does_not_hold_is_rejected() -> Result<()> {
    let (shop, definition) = open().await?;
    let shape = shop.shape().await?;
    for case in &CASES {
        let checked = check(&shop, &definition, case).await;
        checked.with_context(|| format!("column {}", case.column))?;
    }
    ensure!(shop.shape().await? == shape);
    shop.close().await
}

/// The row before it with the same key is then the last one.
#[tokio::test]
async fn a_row_that_does_not_fit_is_no_duplicate() -> Result<()> {
    let (shop, definition) = open().await?;
    let rows = [["1", "1.00"], ["1", "1000"], ["2", "0.001"], ["2", "2.00"]];
    let file = File::new(["number", "price"], &rows);
    for mode in [Mode::Ignore, Mode::Update] {
        shop.execute("DELETE FROM shop.prices").await?;
        shop.merge(&definition, mode, &file, [2, 0, 0, 2]).await?;
        let stored = shop.texts("SELECT price::text FROM shop.prices ORDER BY number");
        ensure!(stored.await? == ["1.00", "2.00"]);
    }
    shop.close().await
}

/// The first column at fault is named. A JSON that Postgres does not take has another reason.
#[tokio::test]
async fn a_row_has_one_reason() -> Result<()> {
    const UNREADABLE: &str = "\"\\u0000\"";
    let (shop, definition) = open().await?;
    let numbers: Vec<String> = (1..=100).map(|number| number.to_string()).collect();
    let row = |number: &'_ String| match number.as_str() {
        "5" => ["5", "1000", "abcd", "{}"].map(str::to_owned),
        "9" => ["9", "1", "a", UNREADABLE].map(str::to_owned),
        "12" => ["12", "1", "abcd", UNREADABLE].map(str::to_owned),
        "90" => ["90", "1", "abcd", "{}"].map(str::to_owned),
        other => [other, "1", "a", "{}"].map(str::to_owned),
    };
    let rows: Vec<[String; 4]> = numbers.iter().map(row).collect();
    let rows: Vec<[&str; 4]> = rows
        .iter()
        .map(|row| row.each_ref().map(String::as_str))
        .collect();
    let file = File::new(["number", "price", "code", "note"], &rows);
    for mode in [Mode::Append, Mode::Update] {
        shop.execute("DELETE FROM shop.prices").await?;
        let upload = shop.merge(&definition, mode, &file, [96, 0, 0, 4]).await?;
        let rejected = shop.rejected(upload.id).await?;
        let reasons = rejected
            .iter()
            .map(|row| (row.row, row.code.as_str(), row.column.as_deref()));
        let expected = [
            (5, "out_of_range", Some("price")),
            (9, "data_exception", None),
            (12, "out_of_range", Some("code")),
            (90, "out_of_range", Some("code")),
        ];
        ensure!(reasons.eq(expected), "{rejected:?}");
    }
    shop.close().await
}
