//! A real file goes into a table that the user has made for it.

use anyhow::{Result, ensure};
use futures::TryStreamExt;
use serde_json::{Value, json};
use sqlx::types::Json;

use super::catalog::Catalog;
use super::{execute, expect_merged, pool, texts};
use crate::app::App;
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::storing::{Checksums, expected_aggregates, postgres_text};
use crate::datasets::{FLIGHTS_COLUMNS, flights_definition, put};
use crate::files::{self, FLIGHTS_ROWS, flights};
use crate::harness::{Mode, quoted};

/// The columns of the file in another order, with narrower types and constraints, among columns of
/// the user's own.
const AIR: &str = "
    CREATE SCHEMA air;
    CREATE DOMAIN air.airport AS varchar(3) CHECK (VALUE ~ '^[A-Z]{3}$');
    CREATE TABLE air.flights (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        time_hour timestamp NOT NULL,
        year smallint NOT NULL CHECK (year = 2013),
        month smallint NOT NULL CHECK (month BETWEEN 1 AND 12),
        day smallint NOT NULL CHECK (day BETWEEN 1 AND 31),
        loaded_at timestamptz NOT NULL DEFAULT now(),
        dep_time smallint CHECK (dep_time <= 2400),
        sched_dep_time integer NOT NULL,
        dep_delay numeric(4),
        arr_time integer,
        sched_arr_time bigint NOT NULL,
        arr_delay numeric,
        carrier char(2) NOT NULL,
        flight integer NOT NULL CHECK (flight > 0),
        tailnum varchar(6),
        origin air.airport NOT NULL,
        dest air.airport NOT NULL,
        air_time smallint,
        distance integer NOT NULL CHECK (distance > 0),
        speed numeric GENERATED ALWAYS AS (distance * 60.0 / air_time) STORED,
        hour smallint NOT NULL,
        minute smallint NOT NULL,
        source text NOT NULL DEFAULT 'carga',
        CHECK (origin <> dest)
    );
    CREATE INDEX by_route ON air.flights (origin, dest);
    INSERT INTO air.flights (time_hour, year, month, day, sched_dep_time, sched_arr_time, carrier,
                             flight, origin, dest, distance, hour, minute, source)
    VALUES ('2013-06-01 10:00', 2013, 6, 1, 1000, 1100, 'XX', 1, 'EWR', 'JFK', 21, 10, 0, 'app'),
           ('2013-06-02 10:00', 2013, 6, 2, 1000, 1100, 'XX', 2, 'JFK', 'EWR', 21, 10, 0, 'app');
";

const OWN_ROWS: &str = "SELECT t::text FROM air.flights AS t WHERE source = 'app' ORDER BY id";

/// What the database has added to the new rows: one time, since a merge is one transaction, the
/// numbers of the identity, and the values of the generated column.
const ADDED: &str = "
    SELECT jsonb_build_array(
        count(DISTINCT loaded_at),
        count(DISTINCT id) = count(*),
        count(*) FILTER (WHERE speed IS DISTINCT FROM distance * 60.0 / air_time)
    )::text
    FROM air.flights WHERE source = 'carga'";

#[tokio::test]
async fn every_column_of_the_flights_in_a_table_of_the_user_equals_an_independent_reading()
-> Result<()> {
    let app = App::start(Mode::Distributed.harness().await?, 2).await?;
    execute(&app, AIR).await?;
    let catalog = Catalog::read(&app, "air").await?;
    let own = texts(&app, OWN_ROWS).await?;
    let mut definition = flights_definition();
    definition["table"] = json!("air.flights");
    put(&app, "flights", &definition, 201).await?;
    let file = flights().await?;
    let id = send_accepted(&app, "flights", &[], file.clone()).await?;
    let outcome = Outcome {
        inserted: FLIGHTS_ROWS.cast_unsigned(),
        ..Outcome::default()
    };
    expect_merged(&app, id, outcome).await?;

    let (columns, rows) = files::read(&file)?;
    let found = aggregates(&app).await?;
    let expected = expected_aggregates(&columns, &rows)?;
    ensure!(found == expected, "{found} instead of {expected}");
    let mut expected = Checksums::default();
    for row in &rows {
        expected.add(row);
    }
    let (found, expected) = (checksums(&app).await?, expected.finish());
    ensure!(expected.len() == columns.len() && found.len() == columns.len());
    for ((column, found), expected) in columns.iter().zip(found).zip(expected) {
        ensure!(found == expected, "column {column} differs from the file");
    }
    let added = texts(&app, ADDED).await?;
    ensure!(added == ["[1, true, 0]"], "{added:?}");
    ensure!(
        texts(&app, OWN_ROWS).await? == own,
        "other rows have changed"
    );
    catalog.expect_unaltered(&app, "the upload").await?;
    app.close().await
}

/// A time of the table without its time zone, which is UTC.
fn in_utc(time: &str) -> String {
    format!("({time} AT TIME ZONE 'UTC')")
}

async fn aggregates(app: &App) -> Result<Value> {
    let time = |aggregate: &str| postgres_text(&in_utc(aggregate), "timestamp");
    let query = format!(
        "SELECT jsonb_build_array(sum(distance), count(dep_time), {}, {})
         FROM air.flights WHERE source = 'carga'",
        time("min(time_hour)"),
        time("max(time_hour)")
    );
    let found = sqlx::query_scalar::<_, Json<Value>>(&query);
    let Json(found) = found.fetch_one(&pool(app)?).await?;
    Ok(found)
}

/// The checksums of the columns in the order of the file. The rows are in the order of their
/// identity, which is that of the file too.
async fn checksums(app: &App) -> Result<Vec<u32>> {
    let texts = FLIGHTS_COLUMNS.map(|(name, kind)| match kind {
        "timestamp" => postgres_text(&in_utc(name), kind),
        _ => postgres_text(&quoted(name), kind),
    });
    let query = format!(
        "SELECT jsonb_build_array({}) FROM air.flights WHERE source = 'carga' ORDER BY id",
        texts.join(", ")
    );
    let pool = pool(app)?;
    let mut rows = sqlx::query_scalar::<_, Json<Vec<String>>>(&query).fetch(&pool);
    let mut found = Checksums::default();
    while let Some(Json(row)) = rows.try_next().await? {
        found.add(row.iter().map(String::as_str));
    }
    Ok(found.finish())
}
