//! The rows of a trial before its transaction begins.

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::Tried;

use super::leftovers::TEMPORARY;
use super::{Prices, good};

/// A dataset in whose database the index of a trial's staged rows fails if this condition is true.
/// The error is that of a statement which takes too long.
async fn open(condition: &str) -> Result<Prices> {
    let sql = format!(
        "CREATE FUNCTION shop.cancel() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF {condition} AND EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                                        WHERE object_identity LIKE '%carga_trial%') THEN
                 RAISE EXCEPTION 'canceled' USING ERRCODE = '57014';
             END IF;
         END
         $$;
         CREATE EVENT TRIGGER cancel_index ON ddl_command_end WHEN TAG IN ('CREATE INDEX')
         EXECUTE FUNCTION shop.cancel()"
    );
    Prices::of_user(&sql).await
}

#[tokio::test]
async fn a_trial_whose_rows_cannot_be_staged_in_time_is_too_long() -> Result<()> {
    let prices = open("true").await?;
    let trial = prices.trial(Mode::Append, 1)?;
    for _ in 0..2 {
        let tried = prices.run(&trial, &[good(1)]).await?;
        ensure!(tried == Tried::TooLong, "{tried:?}");
        let temporary = prices.texts(TEMPORARY).await?;
        ensure!(temporary.is_empty(), "{temporary:?}");
    }
    prices.close().await
}

/// A session allows 60 s for each statement.
#[tokio::test]
async fn the_index_of_the_staged_rows_may_take_longer_than_other_statements() -> Result<()> {
    const IS_SHORT: &str =
        "(SELECT setting::bigint <= 60000 FROM pg_settings WHERE name = 'statement_timeout')";
    let prices = open(IS_SHORT).await?;
    let difference = prices.try_rows(Mode::Append, &[good(1)]).await?;
    ensure!(difference.inserted == 1, "{difference:?}");
    prices.close().await
}
