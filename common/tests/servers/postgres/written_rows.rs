//! Uploads into a table of the user, and their undo.

mod forgetting;
mod keys;
mod names;
mod older_version;
mod refusing;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{Definition, Mode};
use carga_common::store::{
    Completed, CompletionStore, DatasetStore, PostgresStore, PutOutcome, UploadStore,
};
use carga_common::upload::{
    Merge, RejectLimit, UndoneRows, Upload, UploadDataset, UploadId, UploadKey,
};
use carga_testkit::Scope;
use serde_json::{Value, json};

use super::staging::{self, RowCells};
use super::{connect, dataset_key};

/// The cells of a row, or NULL.
type Cells = Vec<Option<String>>;

/// A table of the user, and a dataset that writes into it.
struct Shop {
    scope: Scope,
    store: PostgresStore,
    definition: Definition,
}

impl Shop {
    /// Makes a table by this SQL, and declares the dataset `prices` with these columns and key.
    async fn open(sql: &str, columns: &[(&str, &str)], key: &[&str]) -> Result<Self> {
        let columns: Vec<Value> = columns
            .iter()
            .map(|(name, kind)| json!({ "name": name, "type": kind }))
            .collect();
        let definition = json!({ "columns": columns, "key": key, "table": "shop.prices" });
        let scope = Scope::new().await?;
        let store = connect(scope.database_url()).await?;
        sqlx::raw_sql(&format!("CREATE SCHEMA shop; {sql}"))
            .execute(&scope.pool())
            .await?;
        let definition = Definition::from_json(definition.to_string().as_bytes())?;
        let put = store
            .put_dataset(&dataset_key("prices")?, &definition)
            .await?;
        ensure!(put == PutOutcome::Created, "{put:?}");
        Ok(Self {
            scope,
            store,
            definition,
        })
    }

    /// A table with the columns `sku`, which is the primary key, `price` and `note`.
    async fn simple() -> Result<Self> {
        Self::open(SIMPLE, &SIMPLE_COLUMNS, &["sku"]).await
    }

    /// Stages the rows of an upload.
    async fn stage(&self, mode: Mode, rows: &[Cells]) -> Result<UploadKey> {
        let columns = self.definition.typed_columns();
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let dataset = UploadDataset {
            name: "prices".parse()?,
            tenant: Default::default(),
            sources: (0..).map(Some).take(columns.len()).collect(),
            columns,
            missing: Vec::new(),
            ignored: Vec::new(),
            reject_limit: RejectLimit::default(),
            merge: Some(Merge {
                mode,
                key: self.definition.key.clone(),
            }),
            table: self.definition.table.clone(),
        };
        let rows = rows
            .iter()
            .map(|row| row.iter().map(Option::as_deref).collect());
        let rows: Vec<RowCells<'_>> = rows.collect();
        staging::stage(&self.store, names, dataset, &rows).await
    }

    /// Merges rows, and checks how many are inserted, updated and duplicate.
    async fn merge(&self, mode: Mode, rows: &[Cells], expected: [u64; 3]) -> Result<Upload> {
        let key = self.stage(mode, rows).await?;
        let completed = self.store.complete(key, 0).await?;
        ensure!(completed == Completed::Yes, "{completed:?}");
        let upload = self.find(key.id).await?;
        let figures = [
            upload.rows_inserted,
            upload.rows_updated,
            upload.rows_duplicate,
        ];
        ensure!(figures == expected.map(Some), "{upload:?}");
        Ok(upload)
    }

    async fn find(&self, id: UploadId) -> Result<Upload> {
        let upload = self.store.upload(id).await?;
        upload.context("the upload does not exist")
    }

    /// Undoes an upload, and checks how many rows are reversed, kept and errored.
    async fn undo(&self, upload: &Upload, expected: [u64; 3]) -> Result<()> {
        ensure!(self.store.undo(upload.key()).await?, "it is not undone");
        let [reversed, kept, errored] = expected;
        let expected = UndoneRows {
            reversed,
            kept,
            errored,
        };
        let undone = self.find(upload.id).await?.undone;
        ensure!(undone == Some(expected), "{undone:?}");
        ensure!(self.written(upload).await? == 0);
        Ok(())
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        sqlx::raw_sql(sql).execute(&self.scope.pool()).await?;
        Ok(())
    }

    /// All rows of the table as exact texts, in the order of the primary key.
    async fn rows(&self, primary_key: &str) -> Result<Vec<String>> {
        let pool = self.scope.pool();
        let mut connection = pool.acquire().await?;
        sqlx::raw_sql(EXACT_TEXTS).execute(&mut *connection).await?;
        let rows = format!("SELECT p::text FROM shop.prices AS p ORDER BY {primary_key}");
        Ok(sqlx::query_scalar(&rows)
            .fetch_all(&mut *connection)
            .await?)
    }

    /// How many written rows of an upload are kept.
    async fn written(&self, upload: &Upload) -> Result<u64> {
        const COUNT: &str = "SELECT count(*) FROM written_rows w
            JOIN uploads u ON u.number = w.upload WHERE u.id = $1";
        let count: i64 = sqlx::query_scalar(COUNT)
            .bind(upload.id.as_uuid())
            .fetch_one(&self.scope.pool())
            .await?;
        Ok(u64::try_from(count)?)
    }

    async fn close(self) -> Result<()> {
        drop(self.store);
        self.scope.close().await
    }
}

const EXACT_TEXTS: &str =
    "SET extra_float_digits = 1; SET bytea_output = 'hex'; SET IntervalStyle = 'postgres'";

const SIMPLE: &str = "CREATE TABLE shop.prices (sku text PRIMARY KEY, price numeric, note text)";

const SIMPLE_COLUMNS: [(&str, &str); 2] = [("sku", "text"), ("price", "numeric")];

/// Rows with these cells.
fn rows<const N: usize>(rows: &[[&str; N]]) -> Vec<Cells> {
    let rows = rows.iter();
    rows.map(|cells| cells.iter().map(|cell| Some((*cell).to_owned())).collect())
        .collect()
}

/// A table with values whose texts depend on settings, and with columns that the dataset lacks.
const WIDE: &str = r#"CREATE TABLE shop.prices (
        sku text PRIMARY KEY,
        id bigint GENERATED ALWAYS AS IDENTITY,
        price numeric(8, 2),
        stock smallint,
        seen timestamp,
        note jsonb,
        tags text[] DEFAULT ARRAY['a, b', NULL, '"'],
        share double precision DEFAULT '-0',
        place point DEFAULT '(1e300,-0)',
        span interval DEFAULT '-1 mon +2 days',
        raw bytea DEFAULT '\x00ff',
        fixed char(5) DEFAULT 'ab',
        changed timestamptz DEFAULT '2024-03-31 01:59:59.123456+02',
        twice numeric GENERATED ALWAYS AS (price * 2) STORED);
    INSERT INTO shop.prices (sku, price, stock, seen, note)
        SELECT 'a' || n, n, n, '2024-01-01', to_jsonb(n) FROM generate_series(1, 200) n;
    UPDATE shop.prices SET note = 'null', tags = NULL, raw = '' WHERE sku = 'a1';
    UPDATE shop.prices SET note = NULL, price = NULL, fixed = '' WHERE sku = 'a2';
    UPDATE shop.prices SET share = '1.7976931348623157e308', stock = -7 WHERE sku = 'a3';
    UPDATE shop.prices SET share = 'NaN', changed = '-infinity' WHERE sku = 'a4'"#;

const WIDE_COLUMNS: [(&str, &str); 5] = [
    ("sku", "text"),
    ("price", "numeric"),
    ("stock", "integer"),
    ("seen", "timestamp"),
    ("note", "json"),
];

/// Other defaults of the database. They must not matter.
const OTHER_SETTINGS: &str = "DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', current_database());
    EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
    EXECUTE format('ALTER DATABASE %I SET IntervalStyle = ''iso_8601''', current_database());
    EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
    END $$";

/// Rows of the wide table with these numbers.
fn wide(numbers: std::ops::RangeInclusive<u32>) -> Vec<Cells> {
    let row = |number: u32| {
        let (sku, note) = (format!("a{number}"), format!("{{\"n\": {number}}}"));
        let seen = "2024-05-01T10:00:00.500000Z".to_owned();
        let cells = [sku, "7.5".to_owned(), "9".to_owned(), seen, note];
        cells.map(Some).to_vec()
    };
    numbers.map(row).collect()
}

#[tokio::test]
async fn an_undo_restores_a_table_of_the_user_byte_for_byte() -> Result<()> {
    let mut shop = Shop::open(WIDE, &WIDE_COLUMNS, &["sku"]).await?;
    let before = shop.rows("sku").await?;
    for (mode, numbers, figures) in [
        (Mode::Append, 201..=400, [200, 0, 0]),
        (Mode::Ignore, 1..=400, [200, 0, 200]),
        (Mode::Update, 1..=400, [200, 200, 0]),
    ] {
        let upload = shop.merge(mode, &wide(numbers), figures).await?;
        let written = figures[0] + figures[1];
        ensure!(upload.is_reversible, "{mode}");
        ensure!(shop.written(&upload).await? == written, "{mode}");
        ensure!(shop.rows("sku").await? != before, "{mode}");
        shop.execute(OTHER_SETTINGS).await?;
        shop.store = connect(shop.scope.database_url()).await?;
        shop.undo(&upload, [written, 0, 0]).await?;
        ensure!(shop.rows("sku").await? == before, "{mode}");
        ensure!(!shop.store.undo(upload.key()).await?, "{mode}");
    }
    shop.close().await
}

#[tokio::test]
async fn an_undo_keeps_rows_that_somebody_has_changed() -> Result<()> {
    const CHANGE: &str = "
        UPDATE shop.prices SET note = 'mine' WHERE sku IN ('b', 'e');
        DELETE FROM shop.prices WHERE sku IN ('c', 'f');
        UPDATE shop.prices SET price = 1.50 WHERE sku = 'g'";
    let shop = Shop::simple().await?;
    let old = ["a", "b", "c", "g"].map(|sku| [sku, "1"]);
    shop.merge(Mode::Append, &rows(&old), [4, 0, 0]).await?;
    let new = ["a", "b", "c", "d", "e", "f", "g"].map(|sku| [sku, "1.5"]);
    let upload = shop.merge(Mode::Update, &rows(&new), [3, 4, 0]).await?;
    shop.execute(CHANGE).await?;
    // The text of a value counts, not only the value: somebody has written the price of `g`.
    shop.undo(&upload, [2, 5, 0]).await?;
    let expected = ["(a,1,)", "(b,1.5,mine)", "(e,1.5,mine)", "(g,1.50,)"];
    ensure!(shop.rows("sku").await? == expected);
    shop.close().await
}

#[tokio::test]
async fn an_undo_restores_what_its_upload_has_replaced() -> Result<()> {
    let shop = Shop::simple().await?;
    let one = rows(&[["a", "1"]]);
    let two = rows(&[["a", "2"], ["b", "2"]]);
    let first = shop.merge(Mode::Update, &one, [1, 0, 0]).await?;
    let second = shop.merge(Mode::Update, &two, [1, 1, 0]).await?;
    shop.undo(&second, [2, 0, 0]).await?;
    shop.undo(&first, [1, 0, 0]).await?;
    ensure!(shop.rows("sku").await?.is_empty());

    // In the other order, the row of the first upload comes back.
    let first = shop.merge(Mode::Update, &one, [1, 0, 0]).await?;
    let second = shop.merge(Mode::Update, &two, [1, 1, 0]).await?;
    shop.undo(&first, [0, 1, 0]).await?;
    shop.undo(&second, [2, 0, 0]).await?;
    ensure!(shop.rows("sku").await? == ["(a,1,)"]);
    shop.close().await
}

/// The digest is that of the row that was stored.
#[tokio::test]
async fn a_row_that_a_trigger_has_changed_is_taken_back() -> Result<()> {
    const TRIGGER: &str = "
        CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.note := 'stored as ' || NEW.sku;
            RETURN NEW;
        END
        $$;
        CREATE TRIGGER note BEFORE INSERT ON shop.prices
        FOR EACH ROW EXECUTE FUNCTION shop.note()";
    let shop = Shop::simple().await?;
    shop.execute(TRIGGER).await?;
    let given = rows(&[["a", "1"], ["b", "1"]]);
    let upload = shop.merge(Mode::Ignore, &given, [2, 0, 0]).await?;
    let expected = ["(a,1,\"stored as a\")", "(b,1,\"stored as b\")"];
    ensure!(shop.rows("sku").await? == expected);
    shop.undo(&upload, [2, 0, 0]).await?;
    ensure!(shop.rows("sku").await?.is_empty());
    shop.close().await
}
