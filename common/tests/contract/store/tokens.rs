//! The secret of tokens is the same everywhere, and their uploads are counted exactly.

use anyhow::{Result, ensure};
use carga_common::access::{TokenId, TokenLimits, TokenSecret};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use super::StoreFixture;

/// A token that ends after this many seconds, or has ended before.
fn token(max_uploads: Option<u64>, seconds: i64) -> Result<TokenLimits> {
    Ok(TokenLimits {
        id: TokenId::generate()?,
        expires_at: Timestamp::now() + SignedDuration::from_secs(seconds),
        max_uploads,
        max_bytes: None,
    })
}

pub(super) async fn all_processes_get_the_secret_that_was_kept_first<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push((fixture.open().await?, TokenSecret::generate()?));
    }
    let asked = stores.iter().map(|(store, new)| store.token_secret(new));
    let secrets = try_join_all(asked).await?;
    ensure!(stores.iter().any(|(_, new)| *new == secrets[0]));
    ensure!(secrets.iter().all(|secret| *secret == secrets[0]));
    let later = fixture.open().await?;
    ensure!(later.token_secret(&TokenSecret::generate()?).await? == secrets[0]);
    Ok(())
}

pub(super) async fn the_uploads_of_a_token_are_counted_up_to_its_limit<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let (three, one) = (token(Some(3), 900)?, token(Some(1), 900)?);
    for number in 0..5 {
        let handle = if number % 2 == 0 { &store } else { &other };
        ensure!(handle.count_token_upload(&three).await? == (number < 3));
    }
    // Another token has a count of its own.
    ensure!(store.count_token_upload(&one).await?);
    ensure!(!other.count_token_upload(&one).await?);
    let unlimited = token(None, 900)?;
    for _ in 0..3 {
        ensure!(store.count_token_upload(&unlimited).await?);
    }
    Ok(())
}

pub(super) async fn of_concurrent_uploads_of_a_token_with_one_left_exactly_one_is_counted<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    for _ in 0..5 {
        // One is left of the first token, and all of the second.
        for (most, used) in [(2, 1), (1, 0)] {
            let token = token(Some(most), 900)?;
            for _ in 0..used {
                ensure!(store.count_token_upload(&token).await?);
            }
            let calls = (0..6).map(|number| {
                let store = if number % 2 == 0 { &store } else { &other };
                store.count_token_upload(&token)
            });
            let counted = try_join_all(calls).await?;
            let counted = counted.into_iter().filter(|counted| *counted).count();
            ensure!(counted == 1, "{counted} uploads were counted");
        }
    }
    Ok(())
}

pub(super) async fn a_count_that_is_given_back_may_be_used_once_again<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (token, other) = (token(Some(1), 900)?, token(Some(1), 900)?);
    for token in [&token, &other] {
        ensure!(store.count_token_upload(token).await?);
    }
    // More often than it was counted.
    for _ in 0..2 {
        store.uncount_token_upload(&token).await?;
    }
    ensure!(store.count_token_upload(&token).await?);
    ensure!(!store.count_token_upload(&token).await?);
    ensure!(!store.count_token_upload(&other).await?);
    Ok(())
}

pub(super) async fn the_count_of_a_token_is_removed_an_hour_after_its_end<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let is_kept = async |token: &TokenLimits| -> Result<bool> {
        let contents = fixture.contents().await?;
        Ok(contents.iter().any(|row| row.contains(token.id.as_str())))
    };
    let (ended, recent) = (token(Some(1), -3700)?, token(Some(1), -3500)?);
    for token in [&ended, &recent] {
        ensure!(store.count_token_upload(token).await? && is_kept(token).await?);
    }
    ensure!(store.count_token_upload(&token(Some(1), 900)?).await?);
    ensure!(!is_kept(&ended).await?);
    ensure!(is_kept(&recent).await? && !store.count_token_upload(&recent).await?);
    Ok(())
}
