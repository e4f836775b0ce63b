//! Finds rows that violate the same constraint together.

use sqlx::{PgConnection, Postgres};

use super::Merger;
use crate::dataset::Mode;
use crate::store::postgres::merging::statements;
use crate::store::postgres::savepoint;
use crate::store::postgres::table_rows::constraints::{self, Search};
use crate::store::postgres::table_rows::fault::Fault;
use crate::store::violations::Violation;

impl Merger<'_> {
    /// Excludes the rows that violate the same constraint from the next attempt. Returns false if
    /// they must be found one by one.
    pub(super) async fn exclude(
        &mut self,
        connection: &mut PgConnection,
        fault: Fault,
    ) -> sqlx::Result<bool> {
        let dataset = &self.staged.dataset;
        let is_update = self.staged.merge.mode == Mode::Update;
        let events = constraints::events(self.staged.merge.mode);
        self.staged.limit_statements(connection).await?;
        if !constraints::is_plain(connection, dataset, events).await? {
            return Ok(false);
        }
        self.staged.limit_statements(connection).await?;
        match constraints::search(connection, dataset, &fault).await? {
            Some(Search::Condition(condition)) => {
                let states = self.states_at_fault(&fault.violation);
                self.reject_where(connection, states, &condition, fault.violation)
                    .await
            }
            // A row that is replaced may have had the value of another one.
            Some(Search::Partner(key)) if !is_update => {
                let condition = self.names.has_partner(&key);
                let is_found = self.reject_where(connection, "'n'", &condition, fault.violation);
                if is_found.await? {
                    return Ok(true);
                }
                let set_aside = statements::set_aside(&key);
                let is_found = self.execute(connection, &set_aside).await? > 0;
                self.has_waiting |= is_found;
                Ok(is_found)
            }
            _ => Ok(false),
        }
    }

    /// The states of the rows for which a condition may be tested. A replaced row keeps its values
    /// in columns that the dataset lacks, and a foreign key is checked only if it changes.
    fn states_at_fault(&self, violation: &Violation) -> &'static str {
        let columns = &self.staged.dataset.columns;
        let is_own = |name: &String| columns.iter().any(|column| column.name == *name);
        match violation.code {
            "check_violation" => "'n', 'c'",
            "not_null_violation" if violation.column.as_ref().is_some_and(is_own) => "'n', 'c'",
            _ => "'n'",
        }
    }

    /// Rejects the rows for which a condition is true. Returns false if there are none, or if the
    /// condition cannot be evaluated for these rows.
    async fn reject_where(
        &mut self,
        connection: &mut PgConnection,
        states: &str,
        condition: &str,
        violation: Violation,
    ) -> sqlx::Result<bool> {
        let reject = statements::reject_where(states, condition);
        self.staged.limit_statements(connection).await?;
        savepoint::begin(connection).await?;
        let found = sqlx::query_scalar::<Postgres, i64>(&reject)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await;
        let settled = savepoint::settle_search(connection, found, &self.staged.dataset);
        let Some(numbers) = settled.await? else {
            return Ok(false);
        };
        self.rejects.add(&numbers, violation);
        Ok(!numbers.is_empty())
    }
}
