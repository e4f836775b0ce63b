//! The deadline of a trial.
//!
//! Before version 17, Postgres has a limit for a statement and none for a transaction. Each
//! statement of a trial may therefore take only the time that is left. The locks on the table then
//! end in time even if this process is suspended or dies.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::store::sql;

/// `$1`: the time that is left. It also limits how long the server waits for the next statement.
/// During a statement, the server checks every second whether this process is still connected.
/// Without this check, a trial that its caller gives up would keep its locks until the end of the
/// statement. The server refuses the setting on some systems, but never on Linux.
const LIMIT: &str = "SELECT set_config('statement_timeout', $1, true),
    set_config('idle_in_transaction_session_timeout', $1, true),
    CASE WHEN version() LIKE '%linux%'
        THEN set_config('client_connection_check_interval', '1s', true) END";

/// When a trial must end.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::postgres) struct Deadline(Instant);

impl Deadline {
    /// A deadline after this time.
    pub(in crate::store::postgres) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    pub(in crate::store::postgres) fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// The time that is left. Fails if no time is left.
    pub(in crate::store::postgres) fn check(self) -> sqlx::Result<Duration> {
        let left = self.left();
        match left.is_zero() {
            true => Err(sql::invalid("the time of the trial is over")),
            false => Ok(left),
        }
    }

    /// Limits the next statements of the transaction to the time that is left. Fails if there is
    /// none.
    pub(in crate::store::postgres) async fn limit_statements(
        self,
        connection: &mut PgConnection,
    ) -> sqlx::Result<()> {
        let left = self.check()?;
        sqlx::query(LIMIT)
            .bind(milliseconds(left))
            .execute(connection)
            .await?;
        Ok(())
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A time as the server reads it. It is rounded up, because the server would read 0 as no limit,
/// and must not end a statement before the deadline.
fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_micros().div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rounded_up_to_milliseconds() {
        for (micros, expected) in [
            (1, "1ms"),
            (1000, "1ms"),
            (1001, "2ms"),
            (60_000_000, "60000ms"),
        ] {
            assert_eq!(milliseconds(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn a_deadline_is_over_when_no_time_is_left() {
        assert!(Deadline::after(Duration::ZERO).is_over());
        assert!(!Deadline::after(Duration::from_secs(60)).is_over());
    }
}
