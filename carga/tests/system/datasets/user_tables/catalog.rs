//! What the catalog of the database says about the tables of the user.

use anyhow::{Result, ensure};

use super::{pool, texts};
use crate::app::App;

/// Every fact about the objects of a schema, with the transaction that wrote it. So a change that
/// was taken back is seen too. The counters that a vacuum writes are left out. `$1`: the schema.
const FACTS: &str = "
    WITH s AS (SELECT oid FROM pg_namespace WHERE nspname = $1),
         r AS (SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM s))
    SELECT fact FROM (
        SELECT concat_ws(' ', 'schema', x.xmin, x) FROM pg_namespace x WHERE oid IN (SELECT oid FROM s)
        UNION ALL
        SELECT concat_ws(' ', 'relation', to_jsonb(x) - ARRAY[
            'relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid'
        ]) FROM pg_class x WHERE oid IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'column', x.xmin, x) FROM pg_attribute x WHERE attrelid IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'default', x.xmin, x) FROM pg_attrdef x WHERE adrelid IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'constraint', x.xmin, x) FROM pg_constraint x WHERE connamespace IN (SELECT oid FROM s)
        UNION ALL
        SELECT concat_ws(' ', 'index', x.xmin, x) FROM pg_index x WHERE indrelid IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'trigger', x.xmin, x) FROM pg_trigger x WHERE tgrelid IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'rule', x.xmin, x) FROM pg_rewrite x WHERE ev_class IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'policy', x.xmin, x) FROM pg_policy x WHERE polrelid IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'sequence', x.xmin, x) FROM pg_sequence x WHERE seqrelid IN (SELECT oid FROM r)
        UNION ALL
        SELECT concat_ws(' ', 'type', x.xmin, x) FROM pg_type x WHERE typnamespace IN (SELECT oid FROM s)
        UNION ALL
        SELECT concat_ws(' ', 'function', x.xmin, x) FROM pg_proc x WHERE pronamespace IN (SELECT oid FROM s)
        UNION ALL
        SELECT concat_ws(' ', 'statistics', x.xmin, x) FROM pg_statistic_ext x WHERE stxnamespace IN (SELECT oid FROM s)
        UNION ALL
        SELECT concat_ws(' ', 'comment', x.xmin, x) FROM pg_description x WHERE objoid IN (SELECT oid FROM r)
    ) AS facts (fact) ORDER BY fact";

/// The tables and views that Carga has made for datasets.
const OWN_RELATIONS: &str = "
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'datasets'";

/// The catalog of a schema at one time.
pub(in crate::datasets) struct Catalog {
    schema: String,
    facts: Vec<String>,
}

impl Catalog {
    pub(in crate::datasets) async fn read(app: &App, schema: &str) -> Result<Self> {
        let facts = facts(app, schema).await?;
        let has_columns = facts.iter().any(|fact| fact.starts_with("column "));
        ensure!(has_columns, "schema {schema} has no table");
        Ok(Self {
            schema: schema.to_owned(),
            facts,
        })
    }

    /// Fails if anything in the schema was altered after `step`, or Carga has made a table or a
    /// view of its own.
    pub(in crate::datasets) async fn expect_unaltered(&self, app: &App, step: &str) -> Result<()> {
        let facts = facts(app, &self.schema).await?;
        ensure!(
            facts == self.facts,
            "altered after {step}: {:#?} instead of {:#?}",
            without(&facts, &self.facts),
            without(&self.facts, &facts)
        );
        let own = texts(app, OWN_RELATIONS).await?;
        ensure!(own.is_empty(), "Carga has made {own:?} after {step}");
        Ok(())
    }
}

/// The facts that are not among the others.
fn without<'a>(facts: &'a [String], others: &[String]) -> Vec<&'a String> {
    let facts = facts.iter();
    facts.filter(|fact| !others.contains(fact)).collect()
}

async fn facts(app: &App, schema: &str) -> Result<Vec<String>> {
    let facts = sqlx::query_scalar::<_, String>(FACTS).bind(schema);
    Ok(facts.fetch_all(&pool(app)?).await?)
}
