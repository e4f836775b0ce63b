//! A dataset whose table has constraints of several kinds, and files with rows that violate them.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, ensure};
use proptest::strategy::{Just, Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::app::App;
use crate::datasets::{import, put};
use crate::harness::Mode;

pub(in crate::datasets) const NAME: &str = "prices";

/// The columns of a file. The second one is the dataset's `price`, and the last one is not stored.
pub(super) const HEADER: [&str; 7] = ["sku", "Preço", "day", "shop", "barcode", "note", "colour"];

/// The cells of one row.
pub(super) type Cells = [String; HEADER.len()];

// The indexes of the cells that may have a fault.
const SKU: usize = 0;
const PRICE: usize = 1;
const DAY: usize = 2;
const SHOP: usize = 3;
const BARCODE: usize = 4;
const NOTE: usize = 5;

/// A file with one row. Rows of other files violate a constraint if they repeat its values.
const BASE: &str = "sku,price,day,shop,barcode,note\nbase,\"1,50\",01/01/1999,north,base,first\n";

/// The constraints that an operator adds to the table in Postgres.
const IN_POSTGRES: &str = "
    CREATE TABLE shops (name text PRIMARY KEY);
    INSERT INTO shops VALUES ('north'), ('south');
    ALTER TABLE datasets.prices
        ALTER COLUMN note SET NOT NULL,
        ADD CONSTRAINT positive_price CHECK (price > 0),
        ADD CONSTRAINT sku_once UNIQUE (sku),
        ADD CONSTRAINT barcode_once UNIQUE (barcode) DEFERRABLE INITIALLY DEFERRED,
        ADD CONSTRAINT known_shop FOREIGN KEY (shop) REFERENCES shops (name),
        ADD CONSTRAINT day_once EXCLUDE (day WITH =),
        ADD COLUMN cents integer GENERATED ALWAYS AS ((price * 100)::integer) STORED;
";

/// The same for SQLite. It cannot add a foreign key to a column, so the constraints are written
/// into its schema (<https://www.sqlite.org/lang_altertable.html#otheralter>). The index that is
/// created next makes Carga's connections read the schema again.
const IN_SQLITE: &str = r#"
    CREATE TABLE shops (name text PRIMARY KEY);
    INSERT INTO shops VALUES ('north'), ('south');
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema
        SET sql = replace(replace(sql,
            '"shop" TEXT', '"shop" TEXT REFERENCES shops (name)'),
            '"note" TEXT', '"note" TEXT NOT NULL')
        WHERE name = 'datasets_prices';
    PRAGMA writable_schema = RESET;
    CREATE UNIQUE INDEX sku_once ON datasets_prices (sku);
    CREATE UNIQUE INDEX barcode_once ON datasets_prices (barcode);
    CREATE UNIQUE INDEX day_once ON datasets_prices (substr(day, 1));
    ALTER TABLE datasets_prices ADD COLUMN cents INTEGER
        GENERATED ALWAYS AS (price * 100) VIRTUAL CONSTRAINT positive_price CHECK (cents > 0);
"#;

/// Declares the dataset, adds the constraints, and stores the first row.
pub(in crate::datasets) async fn create(app: &App) -> Result<()> {
    let definition = json!({ "columns": [
        { "name": "sku", "type": "text", "required": true },
        { "name": "price", "type": "numeric", "decimal": ",", "from": ["Preço"] },
        { "name": "day", "type": "date", "format": "%d/%m/%Y" },
        { "name": "shop", "type": "text" },
        { "name": "barcode", "type": "text" },
        { "name": "note", "type": "text" },
    ] });
    put(app, NAME, &definition, 201).await?;
    app.harness.execute(IN_POSTGRES, IN_SQLITE).await?;
    import(app, NAME, BASE, 1).await?;
    Ok(())
}

/// The row of `create`, and the good rows up to this number, as the table has them.
pub(super) fn stored_rows(last: usize) -> Vec<Value> {
    let mut rows = vec![json!([
        "base",
        "1.50",
        "1999-01-01",
        "north",
        "base",
        "first"
    ])];
    rows.extend((1..=last).map(|number| {
        let [sku, price, _, shop, barcode, note, _] = good(number);
        let (year, month, day) = day_of(number);
        let day = format!("{year}-{month:02}-{day:02}");
        let barcode = Some(barcode).filter(|barcode| !barcode.is_empty());
        json!([sku, price.replace(',', "."), day, shop, barcode, note])
    }));
    rows
}

fn day_of(number: usize) -> (usize, usize, usize) {
    (2000 + number / 336, 1 + number / 28 % 12, 1 + number % 28)
}

/// The cells of a row that violates nothing. No two numbers have the same values.
pub(super) fn good(number: usize) -> Cells {
    let (year, month, day) = day_of(number);
    let barcode = match number % 10 {
        // The barcode is NULL. A unique column may have many NULLs.
        9 => String::new(),
        _ => format!("b{number}"),
    };
    [
        format!("s{number}"),
        format!("{number},50"),
        format!("{day:02}/{month:02}/{year}"),
        ["north", "south"][number % 2].to_owned(),
        barcode,
        ["in stock", "two\nlines", "a, \"b\""][number % 3].to_owned(),
        "red".to_owned(),
    ]
}

/// A faulty cell, and how its row is rejected.
#[derive(Debug, Clone, Copy)]
struct Fault {
    position: usize,
    cell: &'static str,
    code: &'static str,
    /// The column and the constraint that the reject names.
    column: Option<&'static str>,
    constraint: Option<&'static str>,
}

const fn fault(
    position: usize,
    cell: &'static str,
    code: &'static str,
    column: Option<&'static str>,
    constraint: Option<&'static str>,
) -> Fault {
    Fault {
        position,
        cell,
        code,
        column,
        constraint,
    }
}

/// The intake finds this fault.
const WRONG_TYPE: Fault = fault(DAY, "soon", "wrong_type", Some("day"), None);

#[rustfmt::skip]
const FAULTS_IN_POSTGRES: [Fault; 8] = [
    fault(SKU, "base", "unique_violation", Some("sku"), Some("sku_once")),
    fault(PRICE, "-1,50", "check_violation", Some("Preço"), Some("positive_price")),
    fault(SHOP, "nowhere", "foreign_key_violation", Some("shop"), Some("known_shop")),
    fault(NOTE, "", "not_null_violation", Some("note"), None),
    fault(DAY, "01/01/1999", "exclusion_violation", Some("day"), Some("day_once")),
    fault(BARCODE, "base", "unique_violation", Some("barcode"), Some("barcode_once")),
    fault(PRICE, "99999999999", "data_exception", None, None),
    WRONG_TYPE,
];

#[rustfmt::skip]
const FAULTS_IN_SQLITE: [Fault; 7] = [
    fault(SKU, "base", "unique_violation", Some("sku"), Some("datasets_prices.sku")),
    fault(PRICE, "-1,50", "check_violation", None, Some("positive_price")),
    fault(SHOP, "nowhere", "foreign_key_violation", None, None),
    fault(NOTE, "", "not_null_violation", Some("note"), None),
    fault(DAY, "01/01/1999", "unique_violation", None, Some("day_once")),
    fault(BARCODE, "base", "unique_violation", Some("barcode"), Some("datasets_prices.barcode")),
    WRONG_TYPE,
];

/// A row of a file that must be rejected.
#[derive(Debug)]
pub(in crate::datasets) struct Reject {
    position: [u64; 3],
    fault: Fault,
    cells: Cells,
}

impl Reject {
    /// Fails unless the object in the report is about this row and has its original text.
    pub(in crate::datasets) fn check(&self, found: &Value) -> Result<()> {
        let Self {
            position: [row, line, offset],
            fault,
            cells,
        } = self;
        let names = [
            "row",
            "line",
            "offset",
            "column",
            "code",
            "constraint",
            "fields",
            "raw",
        ];
        let expected = json!([
            row,
            line,
            offset,
            fault.column,
            fault.code,
            fault.constraint,
            cells,
            null
        ]);
        let same = json!(names.map(|name| found[name].clone())) == expected;
        ensure!(same, "{found} instead of {expected}");
        // The log may have the messages, so they do not repeat cells.
        let message = found["message"].as_str().unwrap_or_default();
        let repeats = !fault.cell.is_empty() && message.contains(fault.cell);
        ensure!(!message.is_empty() && !repeats, "{found}");
        Ok(())
    }

    /// The same row in the CSV, up to the message.
    pub(super) fn csv(&self) -> Vec<String> {
        let position = self.position.map(|number| number.to_string());
        let Fault {
            column,
            code,
            constraint,
            ..
        } = self.fault;
        let reason = [column.unwrap_or(""), code, constraint.unwrap_or("")];
        [&self.cells[..], &position, &reason.map(str::to_owned)].concat()
    }
}

/// A file, and the rows of it that must be rejected.
#[derive(Debug)]
pub(in crate::datasets) struct File {
    pub(in crate::datasets) text: Vec<u8>,
    pub(in crate::datasets) rejects: Vec<Reject>,
}

impl File {
    /// A file of the good rows after number `first`. A random choice of `faulty` rows gets a fault,
    /// and the kinds of faults take turns.
    pub(in crate::datasets) fn new(
        mode: Mode,
        first: usize,
        rows: usize,
        faulty: usize,
        runner: &mut TestRunner,
    ) -> Result<Self> {
        let shuffled = Just((1..=rows).collect::<Vec<_>>()).prop_shuffle();
        let shuffled = shuffled.new_tree(runner);
        let shuffled = shuffled.map_err(|reason| anyhow!("{reason}"))?.current();
        let faults: &[Fault] = match mode {
            Mode::Distributed => &FAULTS_IN_POSTGRES,
            Mode::Embedded => &FAULTS_IN_SQLITE,
        };
        let faults = shuffled.into_iter().zip(faults.iter().cycle()).take(faulty);
        let faults: BTreeMap<usize, &Fault> = faults.collect();

        let (mut text, mut rejects) = (record(&HEADER)?, Vec::new());
        let mut line = 2;
        for row in 1..=rows {
            let mut cells = good(first + row);
            if let Some(&&fault) = faults.get(&row) {
                cells[fault.position] = fault.cell.to_owned();
                rejects.push(Reject {
                    position: [row as u64, line, text.len() as u64],
                    fault,
                    cells: cells.clone(),
                });
            }
            let record = record(&cells)?;
            line += record.iter().filter(|byte| **byte == b'\n').count() as u64;
            text.extend(record);
        }
        Ok(Self { text, rejects })
    }

    /// How many rows the intake rejects.
    pub(super) fn wrong_types(&self) -> usize {
        let codes = self.rejects.iter().map(|reject| reject.fault.code);
        codes.filter(|code| *code == WRONG_TYPE.code).count()
    }
}

fn record(cells: &[impl AsRef<[u8]>]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells)?;
    Ok(writer.into_inner()?)
}
