//! The state that random names must not change: the catalog of the database, and an earlier upload.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use csv::StringRecord;
use serde_json::Value;
use uuid::Uuid;

use crate::app::{App, KNOWN_DIALECT};
use crate::datasets::violations::rejected_rows;
use crate::harness::{Harness, close_after};

/// Every object outside of the schemas of Postgres and of temporary tables, with its definition.
/// The counters that a vacuum writes are left out.
const IN_POSTGRES: &str = "
    WITH s AS (
        SELECT oid FROM pg_namespace
        WHERE nspname NOT IN ('pg_catalog', 'information_schema')
          AND nspname !~ '^pg_(toast_)?temp_'),
    r AS (SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM s))
    SELECT concat_ws(' ', 'schema', x) FROM pg_namespace x WHERE x.oid IN (SELECT oid FROM s)
    UNION ALL
    SELECT concat_ws(' ', 'relation', to_jsonb(x) - ARRAY[
        'relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid'
    ]) FROM pg_class x WHERE x.oid IN (SELECT oid FROM r)
    UNION ALL
    SELECT concat_ws(' ', 'column', x) FROM pg_attribute x WHERE x.attrelid IN (SELECT oid FROM r)
    UNION ALL
    SELECT concat_ws(' ', 'default', x, pg_get_expr(x.adbin, x.adrelid))
    FROM pg_attrdef x WHERE x.adrelid IN (SELECT oid FROM r)
    UNION ALL
    SELECT concat_ws(' ', 'constraint', x, pg_get_constraintdef(x.oid))
    FROM pg_constraint x WHERE x.connamespace IN (SELECT oid FROM s)
    UNION ALL
    SELECT concat_ws(' ', 'index', x, pg_get_indexdef(x.indexrelid))
    FROM pg_index x WHERE x.indrelid IN (SELECT oid FROM r)
    UNION ALL
    SELECT concat_ws(' ', 'trigger', x, pg_get_triggerdef(x.oid))
    FROM pg_trigger x WHERE x.tgrelid IN (SELECT oid FROM r)
    UNION ALL
    SELECT concat_ws(' ', 'rule', x.oid, pg_get_ruledef(x.oid))
    FROM pg_rewrite x WHERE x.ev_class IN (SELECT oid FROM r)
    UNION ALL
    SELECT concat_ws(' ', 'type', x) FROM pg_type x WHERE x.typnamespace IN (SELECT oid FROM s)
    UNION ALL
    SELECT concat_ws(' ', 'function', x)
    FROM pg_proc x WHERE x.pronamespace IN (SELECT oid FROM s)";

const IN_SQLITE: &str =
    "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '') FROM sqlite_schema";

/// The whole catalog of the database at one time.
pub(super) struct Catalog(BTreeSet<String>);

impl Catalog {
    pub(super) async fn read(app: &App) -> Result<Self> {
        let facts = match &app.harness {
            Harness::Embedded(directory) => {
                let mut carga = directory.open("carga.db").await?;
                let facts = sqlx::query_scalar::<_, String>(IN_SQLITE);
                close_after(facts.fetch_all(&mut carga).await, carga).await?
            }
            Harness::Distributed(scope) => {
                let facts = sqlx::query_scalar::<_, String>(IN_POSTGRES);
                facts.fetch_all(&scope.pool()).await?
            }
        };
        let has_tables = facts.iter().any(|fact| fact.contains("rejected_rows"));
        ensure!(has_tables, "the catalog lacks the tables of Carga");
        Ok(Self(facts.into_iter().collect()))
    }

    /// Fails if an object was made, altered or dropped.
    pub(super) async fn expect_unchanged(&self, app: &App) -> Result<()> {
        let Self(facts) = Self::read(app).await?;
        let made: Vec<_> = facts.difference(&self.0).collect();
        let gone: Vec<_> = self.0.difference(&facts).collect();
        ensure!(
            made.is_empty() && gone.is_empty(),
            "the catalog has {made:#?} instead of {gone:#?}"
        );
        Ok(())
    }
}

/// An upload without a dataset. Its rows, batches and rejected row are in the tables of Carga.
#[derive(Debug, PartialEq)]
struct Earlier {
    id: Uuid,
    shown: Value,
    batches: i64,
    rejected: Vec<Value>,
}

impl Earlier {
    /// Sends a file with two rows and a record that is rejected.
    async fn send(app: &App) -> Result<Self> {
        let id = Uuid::now_v7();
        let file = "a,b\n1,x\n2,y\n3\n";
        let answer = app.put_with(id, KNOWN_DIALECT, file).await?;
        ensure!(answer.status() == 202, "{}", answer.text().await?);
        app.wait_until_ended(id).await?;
        Self::read(app, id).await
    }

    async fn read(app: &App, id: Uuid) -> Result<Self> {
        let rows = [["1", "x"], ["2", "y"]].map(|row| StringRecord::from(row.to_vec()));
        app.harness.check_rows(id, &rows).await?;
        let rejected = rejected_rows(app, id).await?;
        ensure!(rejected.len() == 1, "{rejected:?}");
        Ok(Self {
            id,
            shown: app.upload(id).await?.context("no upload")?,
            batches: app.harness.count_batches(id).await?,
            rejected,
        })
    }
}

pub(super) struct Before {
    catalog: Catalog,
    earlier: Earlier,
}

impl Before {
    /// Sends the earlier upload, and reads the catalog.
    pub(super) async fn read(app: &App) -> Result<Self> {
        let earlier = Earlier::send(app).await?;
        let catalog = Catalog::read(app).await?;
        Ok(Self { catalog, earlier })
    }

    /// Fails unless the catalog and the earlier upload are as they were.
    pub(super) async fn expect_unchanged(&self, app: &App) -> Result<()> {
        self.catalog.expect_unchanged(app).await?;
        let earlier = Earlier::read(app, self.earlier.id).await?;
        ensure!(
            earlier == self.earlier,
            "{earlier:#?} instead of {:#?}",
            self.earlier
        );
        Ok(())
    }
}
