//! The secret of tokens is the same everywhere, and their uploads are counted exactly.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use carga_common::access::{TokenId, TokenLimits, TokenSecret};
use carga_common::error::ErrorKind;
use carga_common::idempotency::{IdempotentRequest, fingerprint};
use carga_common::store::{CreateConditions, CreateOutcome, Store};
use carga_common::upload::UploadId;
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use super::datasets::{key, new_typed_upload, sample_definition};
use super::idempotency::sending;
use super::{StoreFixture, failure, new_upload};
use crate::sample::{self, first};

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

/// Sends an upload with this token. Returns false if the token is used up.
async fn send(store: &dyn Store, token: &TokenLimits) -> Result<bool> {
    let upload = new_upload(UploadId::generate(), sample::columns());
    let conditions = CreateConditions {
        token: Some(token),
        ..CreateConditions::default()
    };
    let outcome = store.create_if(&upload, conditions).await?;
    let is_recorded = store.upload(upload.id).await?.is_some();
    match outcome {
        CreateOutcome::Created(_) => ensure!(is_recorded),
        CreateOutcome::TokenUsedUp => ensure!(!is_recorded),
        other => anyhow::bail!("{other:?}"),
    }
    Ok(is_recorded)
}

/// Sends an upload with this token and the key of this request.
async fn send_once(
    store: &dyn Store,
    token: &TokenLimits,
    request: &IdempotentRequest,
) -> Result<CreateOutcome> {
    let upload = new_upload(UploadId::generate(), sample::columns());
    let conditions = CreateConditions {
        request: Some(request),
        token: Some(token),
        ..CreateConditions::default()
    };
    Ok(store.create_if(&upload, conditions).await?)
}

pub(super) async fn the_uploads_of_a_token_are_counted_up_to_its_limit<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let (three, one) = (token(Some(3), 900)?, token(Some(1), 900)?);
    for number in 0..5 {
        let handle = if number % 2 == 0 { &store } else { &other };
        ensure!(send(handle.as_ref(), &three).await? == (number < 3));
    }
    // Another token has a count of its own.
    ensure!(send(store.as_ref(), &one).await?);
    ensure!(!send(other.as_ref(), &one).await?);
    let unlimited = token(None, 900)?;
    for _ in 0..3 {
        ensure!(send(store.as_ref(), &unlimited).await?);
    }
    Ok(())
}

pub(super) async fn of_concurrent_uploads_of_a_token_with_one_left_exactly_one_is_created<
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
                ensure!(send(store.as_ref(), &token).await?);
            }
            let calls = (0..6).map(|number| {
                let store = if number % 2 == 0 { &store } else { &other };
                send(store.as_ref(), &token)
            });
            let created = try_join_all(calls).await?;
            let created = created.into_iter().filter(|created| *created).count();
            ensure!(created == 1, "{created} uploads were created");
        }
    }
    Ok(())
}

pub(super) async fn an_upload_that_is_not_created_is_not_counted<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (token, once) = (token(Some(2), 900)?, sending()?);
    let sent = send_once(store, &token, &once).await?;
    let CreateOutcome::Created(sent) = sent else {
        anyhow::bail!("{sent:?}");
    };
    // At last, the token is used up. The refusals stay the same.
    for is_left in [true, true, false] {
        if !is_left {
            ensure!(send(store, &token).await? && !send(store, &token).await?);
        }
        // Another request has the key.
        let repeated = send_once(store, &token, &once).await?;
        ensure!(matches!(repeated, CreateOutcome::KeyTaken), "{repeated:?}");
        // The public id is used, and the dataset does not exist.
        let used = new_upload(sent.public_id, sample::columns());
        let definition = sample_definition()?;
        let missing = new_typed_upload(UploadId::generate(), &key("missing")?, &definition);
        for (upload, kind) in [(used, ErrorKind::Conflict), (missing, ErrorKind::NotFound)] {
            let conditions = CreateConditions {
                token: Some(&token),
                ..CreateConditions::default()
            };
            let outcome = store.create_if(&upload, conditions).await;
            let error = outcome.err().context("the upload was created")?;
            ensure!(error.kind() == kind, "{}", error.chain());
        }
    }
    Ok(())
}

/// The first request uses its token up. Its repetitions wait for it, and find its key.
pub(super) async fn concurrent_repetitions_of_a_request_never_find_its_token_used_up<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    for number in 0..5 {
        let (token, mut once) = (token(Some(1), 900)?, sending()?);
        once.key.text = format!("k{number}").parse()?;
        let calls = (0..8).map(|number| {
            let store = Arc::clone(&handles[number % 2]);
            let (token, once) = (token.clone(), once.clone());
            tokio::spawn(async move { send_once(store.as_ref(), &token, &once).await })
        });
        let mut created = 0;
        for outcome in try_join_all(calls).await? {
            match outcome? {
                CreateOutcome::Created(_) => created += 1,
                CreateOutcome::KeyTaken => {}
                other => anyhow::bail!("{other:?}"),
            }
        }
        ensure!(created == 1, "{created} uploads were created");
    }
    Ok(())
}

pub(super) async fn an_upload_that_takes_over_the_key_of_a_failed_one_is_not_counted_again<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (token, once) = (token(Some(1), 900)?, sending()?);
    for _ in 0..3 {
        let outcome = send_once(store, &token, &once).await?;
        let CreateOutcome::Created(sent) = outcome else {
            anyhow::bail!("{outcome:?}");
        };
        ensure!(store.fail(first(sent.id), &failure(), None).await?);
    }
    // Another key needs a further upload of the token.
    let mut other = once.clone();
    other.key.text = "other".parse()?;
    let outcome = send_once(store, &token, &other).await?;
    ensure!(matches!(outcome, CreateOutcome::TokenUsedUp), "{outcome:?}");
    ensure!(store.first_upload(&other.key).await?.is_none());
    Ok(())
}

/// Otherwise one key would be enough for any number of failing uploads.
pub(super) async fn another_request_that_takes_over_the_key_of_a_failed_upload_is_counted<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (token, once) = (token(Some(2), 900)?, sending()?);
    let other = IdempotentRequest {
        fingerprint: fingerprint([("trim", "false")]),
        ..once.clone()
    };
    for (request, is_allowed) in [
        (&once, true),
        (&once, true),
        (&other, true),
        (&once, false),
        (&other, true),
    ] {
        match send_once(store, &token, request).await? {
            CreateOutcome::Created(sent) => {
                ensure!(is_allowed, "more uploads than the token allows");
                ensure!(store.fail(first(sent.id), &failure(), None).await?);
            }
            CreateOutcome::TokenUsedUp => ensure!(!is_allowed, "an attempt was counted again"),
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok(())
}

pub(super) async fn the_count_of_a_token_is_removed_an_hour_after_its_end<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let is_kept = async |token: &TokenLimits| -> Result<bool> {
        let contents = fixture.contents().await?;
        Ok(contents.iter().any(|row| row.contains(token.id.as_str())))
    };
    let (ended, recent) = (token(Some(1), -3700)?, token(Some(1), -3500)?);
    for token in [&ended, &recent] {
        ensure!(send(store, token).await? && is_kept(token).await?);
    }
    ensure!(send(store, &token(Some(1), 900)?).await?);
    ensure!(!is_kept(&ended).await?);
    ensure!(is_kept(&recent).await? && !send(store, &recent).await?);
    Ok(())
}
