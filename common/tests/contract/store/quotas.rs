//! How much each tenant uploads.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::store::{
    CreateConditions, CreateOutcome, Heartbeat, NewUpload, Seal, Store, USAGE_KEPT_DAYS,
    UploadSlots, Usage,
};
use carga_common::tenant::Tenant;
use carga_common::upload::{Status, Upload, UploadId};
use futures::future::try_join_all;
use jiff::{Timestamp, ToSpan, tz::TimeZone};

use super::idempotency::sending;
use super::{StoreFixture, complete, failure, new_upload, seal, store_new};
use crate::sample::{self, first};

/// Longer than any case takes.
const LEASE: Duration = Duration::from_secs(3600);

const OLD_LEASES: &str = "UPDATE upload_leases SET renewed_at = '2020-01-01T00:00:00.000000Z'";

fn slots(most: u32) -> CreateConditions<'static> {
    CreateConditions {
        slots: Some(UploadSlots { most, lease: LEASE }),
        ..CreateConditions::default()
    }
}

fn new_of(tenant: &Tenant) -> NewUpload {
    NewUpload {
        tenant: tenant.clone(),
        ..new_upload(UploadId::generate(), sample::columns())
    }
}

async fn create(store: &dyn Store, tenant: &Tenant, most: u32) -> Result<Option<Upload>> {
    let new = new_of(tenant);
    let creation = store.create_if(&new, slots(most)).await?;
    Ok(creation.upload())
}

async fn begin(store: &dyn Store, tenant: &Tenant) -> Result<UploadId> {
    let created = create(store, tenant, 100).await?;
    Ok(created.context("no slot is free")?.id)
}

async fn check_usage(store: &dyn Store, tenant: &Tenant, expected: (u64, u64, u64)) -> Result<()> {
    let (uploads, bytes, rows) = expected;
    let expected = Usage {
        uploads,
        bytes,
        rows,
    };
    let found = store.usage(tenant, LEASE).await?;
    ensure!(found == expected, "expected {expected:?}, found {found:?}");
    Ok(())
}

async fn receive(store: &dyn Store, upload: UploadId, bytes: u64, rows: u64) -> Result<()> {
    let beat = Heartbeat {
        upload,
        rows_read: rows,
        rows_rejected: 0,
        bytes_received: bytes,
    };
    ensure!(store.heartbeat(&[beat]).await? == [upload]);
    Ok(())
}

pub(super) async fn a_tenant_has_as_many_slots_as_it_is_given<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (acme, other): (Tenant, Tenant) = ("acme".parse()?, "other".parse()?);
    let one = create(store, &acme, 2).await?.context("no slot")?;
    ensure!(one.tenant == acme && store.upload(one.id).await?.is_some());
    ensure!(create(store, &acme, 2).await?.is_some());
    let refused = new_of(&acme);
    let creation = store.create_if(&refused, slots(2)).await?;
    ensure!(matches!(creation, CreateOutcome::NoSlot), "{creation:?}");
    ensure!(store.upload_of(&acme, refused.id).await?.is_none());
    // The uploads of another tenant have slots of their own, and `create` counts none.
    ensure!(create(store, &other, 2).await?.is_some());
    store.create(&new_of(&acme)).await?;
    check_usage(store, &acme, (3, 0, 0)).await?;
    check_usage(store, &other, (1, 0, 0)).await
}

pub(super) async fn an_upload_that_was_sealed_or_has_ended_has_no_slot<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let acme: Tenant = "acme".parse()?;
    for end in 0..3 {
        let id = create(store, &acme, 1).await?.context("no slot")?.id;
        ensure!(create(store, &acme, 1).await?.is_none());
        ensure!(match end {
            0 => store.seal(first(id), &seal(1, 10)).await?,
            1 => store.fail(first(id), &failure(), None).await?,
            _ => store.cancel(first(id)).await?,
        });
    }
    ensure!(create(store, &acme, 1).await?.is_some());
    Ok(())
}

pub(super) async fn an_upload_whose_lease_expired_has_no_slot<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let acme: Tenant = "acme".parse()?;
    let killed = create(store, &acme, 1).await?.context("no slot")?.id;
    receive(store, killed, 70, 7).await?;
    fixture.execute(OLD_LEASES).await?;
    check_usage(store, &acme, (0, 0, 0)).await?;
    ensure!(create(store, &acme, 1).await?.is_some());
    // The sweeper counts what had arrived.
    ensure!(store.expire(first(killed), LEASE).await?);
    check_usage(store, &acme, (1, 70, 7)).await
}

pub(super) async fn of_concurrent_creations_as_many_succeed_as_there_are_slots<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    let tenants: [Tenant; 2] = ["acme".parse()?, "other".parse()?];
    let creations = (0..24).map(|number: usize| {
        let store = handles[number % 2].clone();
        let new = new_of(&tenants[number / 12]);
        tokio::spawn(async move { store.create_if(&new, slots(3)).await })
    });
    let mut created = [0, 0];
    for outcome in try_join_all(creations).await? {
        if let Some(upload) = outcome?.upload() {
            created[usize::from(upload.tenant == tenants[1])] += 1;
        }
    }
    ensure!(created == [3, 3], "{created:?}");
    Ok(())
}

pub(super) async fn a_creation_within_slots_is_refused_like_any_creation<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let new = new_of(&"acme".parse()?);
    let first = store.create_if(&new, slots(5)).await?;
    ensure!(first.upload().is_some());
    let error = store.create_if(&new, slots(5)).await.err();
    let error = error.context("the id was used twice")?;
    ensure!(error.kind() == ErrorKind::Conflict, "{}", error.chain());
    Ok(())
}

pub(super) async fn a_creation_within_slots_takes_the_key_of_its_request<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let request = sending()?;
    let create = async |most: u32| {
        let new = new_of(&request.key.tenant);
        let conditions = CreateConditions {
            request: Some(&request),
            ..slots(most)
        };
        store.create_if(&new, conditions).await
    };
    let holder = async || {
        let first = store.first_upload(&request.key).await?;
        anyhow::Ok(first.map(|first| first.upload.id))
    };
    let other = begin(store, &request.key.tenant).await?;
    ensure!(matches!(create(1).await?, CreateOutcome::NoSlot));
    ensure!(holder().await?.is_none());
    let created = create(2).await?.upload().context("no slot")?;
    ensure!(holder().await? == Some(created.id));
    // With a free slot, the key decides. What was not created has no slot.
    ensure!(matches!(create(3).await?, CreateOutcome::KeyTaken));
    check_usage(store, &request.key.tenant, (2, 0, 0)).await?;
    ensure!(holder().await? == Some(created.id) && created.id != other);
    Ok(())
}

pub(super) async fn an_upload_counts_once_with_its_final_figures<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let acme: Tenant = "acme".parse()?;
    let sealed = begin(store, &acme).await?;
    receive(store, sealed, 50, 5).await?;
    check_usage(store, &acme, (1, 50, 5)).await?;
    store_new(store, &sample::batches(sealed, 1, 10)?).await?;
    let totals = Seal {
        bytes: 120,
        ..seal(1, 10)
    };
    ensure!(store.seal(first(sealed), &totals).await?);
    check_usage(store, &acme, (0, 120, 10)).await?;
    // A repeated seal, the completion and an undo change nothing.
    ensure!(store.seal(first(sealed), &totals).await?);
    store.complete(first(sealed), 0).await?;
    ensure!(store.undo(first(sealed)).await?);
    check_usage(store, &acme, (0, 120, 10)).await?;

    let failed = begin(store, &acme).await?;
    let last = Heartbeat {
        upload: failed,
        rows_read: 3,
        rows_rejected: 0,
        bytes_received: 30,
    };
    ensure!(store.fail(first(failed), &failure(), Some(last)).await?);
    ensure!(!store.fail(first(failed), &failure(), Some(last)).await?);
    check_usage(store, &acme, (0, 150, 13)).await?;

    // An upload that fails after its seal has counted already.
    let failed_later = begin(store, &acme).await?;
    ensure!(store.seal(first(failed_later), &seal(1, 1)).await?);
    ensure!(store.fail(first(failed_later), &failure(), None).await?);
    check_usage(store, &acme, (0, 160, 14)).await
}

pub(super) async fn what_arrives_until_the_end_of_a_cancelled_upload_counts_once<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let acme: Tenant = "acme".parse()?;
    let id = begin(store, &acme).await?;
    receive(store, id, 50, 5).await?;
    ensure!(store.cancel(first(id)).await?);
    check_usage(store, &acme, (0, 50, 5)).await?;
    let last = Heartbeat {
        upload: id,
        rows_read: 7,
        rows_rejected: 0,
        bytes_received: 80,
    };
    // The first answer may be lost.
    for _ in 0..2 {
        ensure!(!store.fail(first(id), &failure(), Some(last)).await?);
        check_usage(store, &acme, (0, 80, 7)).await?;
    }
    let cancelled = store.upload(id).await?.context("no upload")?;
    ensure!(cancelled.status == Status::Cancelled, "{cancelled:?}");
    ensure!((cancelled.bytes_received, cancelled.rows_read) == (80, 7));
    // A failure with earlier figures, or of a sealed upload, changes nothing.
    let earlier = Heartbeat {
        bytes_received: 10,
        rows_read: 1,
        ..last
    };
    ensure!(!store.fail(first(id), &failure(), Some(earlier)).await?);
    let sealed = begin(store, &acme).await?;
    ensure!(store.seal(first(sealed), &seal(1, 1)).await?);
    let (bytes, rows) = (80 + seal(1, 1).bytes, 7 + seal(1, 1).rows);
    let late = Heartbeat {
        upload: sealed,
        bytes_received: 100_000,
        ..last
    };
    ensure!(!store.fail(first(sealed), &failure(), Some(late)).await?);
    check_usage(store, &acme, (0, bytes, rows)).await
}

pub(super) async fn the_usage_of_a_tenant_is_that_of_its_uploads_today<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const YESTERDAY: &str = "UPDATE tenant_usage SET day = '2020-01-01'";
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (acme, default): (Tenant, Tenant) = ("acme".parse()?, Tenant::default());
    complete(store, 2, 10).await?;
    check_usage(store, &default, (0, 200, 20)).await?;
    check_usage(store, &acme, (0, 0, 0)).await?;
    fixture.execute(YESTERDAY).await?;
    check_usage(store, &default, (0, 0, 0)).await?;
    complete(store, 1, 10).await?;
    check_usage(store, &default, (0, 100, 10)).await
}

pub(super) async fn usage_is_deleted_after_400_days_in_bounded_steps<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const OLD: u64 = 2500;
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    complete(store, 1, 10).await?;
    let before = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let kept = before.checked_sub(i32::from(USAGE_KEPT_DAYS).days())?;
    let old = kept.checked_sub(1.day())?;
    let rows = (0..OLD).map(|number| format!("('old{number}', '{old}', 1, 1)"));
    let rows: Vec<String> = rows
        .chain([format!("('recent-tenant', '{kept}', 1, 1)")])
        .collect();
    let rows = rows.join(", ");
    let insert = format!("INSERT INTO tenant_usage (tenant, day, bytes, rows) VALUES {rows}");
    fixture.execute(&insert).await?;
    let mut deleted = 0;
    loop {
        let step = store.forget_usage().await?;
        ensure!(step <= 1000, "{step} at once");
        deleted += step;
        if step == 0 {
            break;
        }
    }
    // At midnight UTC, the day that was kept becomes old.
    let is_same_day = Timestamp::now().to_zoned(TimeZone::UTC).date() == before;
    ensure!(!is_same_day || deleted == OLD, "{deleted}");
    let is_left = fixture.contents().await?;
    let is_left = is_left.iter().any(|row| row.contains("recent-tenant"));
    ensure!(!is_same_day || is_left);
    check_usage(store, &Tenant::default(), (0, 100, 10)).await
}
