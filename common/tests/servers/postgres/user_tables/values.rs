//! Values of every type that takes rows.

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;

use super::{File, Shop, definition};

const TABLE: &str = "
    CREATE TYPE shop.color AS ENUM ('red', 'green');
    CREATE DOMAIN shop.cost AS numeric(5, 2) CHECK (VALUE > 0);
    CREATE DOMAIN shop.tint AS shop.color;
    CREATE TABLE shop.prices (
        number smallint PRIMARY KEY,
        a_text text, a_varchar varchar(9), a_char char(4), a_color shop.color, a_tint shop.tint,
        an_int integer, a_bigint bigint, a_whole numeric(4), a_numeric numeric, a_cost shop.cost,
        a_float double precision, a_boolean boolean, a_date date, with_zone timestamptz,
        without_zone timestamp, a_uuid uuid, a_json jsonb)";

const COLUMNS: [(&str, &str); 18] = [
    ("number", "integer"),
    ("a_text", "text"),
    ("a_varchar", "text"),
    ("a_char", "text"),
    ("a_color", "text"),
    ("a_tint", "text"),
    ("an_int", "integer"),
    ("a_bigint", "integer"),
    ("a_whole", "integer"),
    ("a_numeric", "numeric"),
    ("a_cost", "numeric"),
    ("a_float", "float"),
    ("a_boolean", "boolean"),
    ("a_date", "date"),
    ("with_zone", "timestamp"),
    ("without_zone", "timestamp"),
    ("a_uuid", "uuid"),
    ("a_json", "json"),
];

const FIRST: [&str; 18] = [
    "1",
    "é \"x\"",
    "abc",
    "ab",
    "red",
    "green",
    "-7",
    "9007199254740993",
    "1234",
    "1.500",
    "999.99",
    "0.1",
    "true",
    "2024-02-29",
    "2024-02-29T23:30:00.123456Z",
    "2024-02-29T23:30:00.123456Z",
    "0190b3a4-7c1e-7000-8000-000000000001",
    "{\"a\": [1, null]}",
];

/// A time without a zone is that of UTC, whatever the zone of the database is.
#[tokio::test]
async fn values_of_every_type_are_stored_as_they_are() -> Result<()> {
    const ZONE: &str = "DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
        END $$;";
    const STORED: &str = "SELECT (to_jsonb(p) || jsonb_build_object('with_zone', with_zone = '2024-02-29 23:30:00.123456+00'))::text
        FROM shop.prices AS p ORDER BY number";
    let shop = Shop::open(&format!("{ZONE} {TABLE}")).await?;
    let definition = definition(&COLUMNS, &["number"])?;
    shop.declare(&definition).await?;
    let shape = shop.shape().await?;
    let mut nulls = ["NULL"; 18];
    nulls[0] = "2";
    let file = File::new(COLUMNS.map(|(name, _)| name), &[FIRST, nulls]);
    shop.merge(&definition, Mode::Append, &file, [2, 0, 0, 0])
        .await?;
    let expected = serde_json::json!({
        "number": 1, "a_text": "é \"x\"", "a_varchar": "abc", "a_char": "ab  ", "a_color": "red",
        "a_tint": "green", "an_int": -7, "a_bigint": 9_007_199_254_740_993_i64, "a_whole": 1234,
        "a_numeric": 1.5, "a_cost": 999.99, "a_float": 0.1, "a_boolean": true,
        "a_date": "2024-02-29", "with_zone": true, "without_zone": "2024-02-29T23:30:00.123456",
        "a_uuid": "0190b3a4-7c1e-7000-8000-000000000001", "a_json": { "a": [1, null] }
    });
    let stored = shop.texts(STORED).await?;
    let first: serde_json::Value = serde_json::from_str(&stored[0])?;
    ensure!(first == expected, "{first}");
    let numeric = shop.texts("SELECT a_numeric::text FROM shop.prices WHERE number = 1");
    ensure!(numeric.await? == ["1.500"]);
    // The same values change nothing, those of each column included.
    shop.merge(&definition, Mode::Update, &file, [0, 0, 2, 0])
        .await?;
    ensure!(shop.texts(STORED).await? == stored);
    ensure!(shop.shape().await? == shape);
    shop.close().await
}

/// One column at a time differs.
#[tokio::test]
async fn a_change_of_any_column_replaces_the_row() -> Result<()> {
    const OTHER: [&str; 18] = [
        "1",
        "É \"x\"",
        "abz",
        "abc",
        "green",
        "red",
        "-8",
        "9007199254740992",
        "1235",
        "1.501",
        "999.98",
        "0.2",
        "false",
        "2024-03-01",
        "2024-02-29T23:30:00.123457Z",
        "2024-02-29T23:30:00.123457Z",
        "0190b3a4-7c1e-7000-8000-000000000002",
        "{\"a\": [1]}",
    ];
    let shop = Shop::open(TABLE).await?;
    let definition = definition(&COLUMNS, &["number"])?;
    shop.declare(&definition).await?;
    let names = COLUMNS.map(|(name, _)| name);
    let file = File::new(names, &[FIRST]);
    shop.merge(&definition, Mode::Update, &file, [1, 0, 0, 0])
        .await?;
    let mut row = FIRST;
    for (index, other) in OTHER.iter().enumerate().skip(1) {
        row[index] = other;
        let file = File::new(names, &[row]);
        shop.merge(&definition, Mode::Update, &file, [0, 1, 0, 0])
            .await?;
        row[index] = "NULL";
        let file = File::new(names, &[row]);
        shop.merge(&definition, Mode::Update, &file, [0, 1, 0, 0])
            .await?;
    }
    shop.close().await
}
