//! Lists of uploads.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use carga_common::store::{NewUpload, Store, UploadQuery};
use carga_common::tenant::Tenant;
use carga_common::upload::{Status, Upload, UploadId};
use futures::future::try_join_all;
use uuid::Uuid;

use crate::sample::{self, first};
use crate::store::datasets::{create, key_of, new_typed_upload, sample_definition};
use crate::store::{StoreFixture, begin, complete, fail, new_upload, seal};

/// Gives all uploads the same creation time.
const EQUALIZE_CREATED_AT: &str =
    "UPDATE uploads SET created_at = (SELECT min(created_at) FROM uploads)";

const ALL: UploadQuery = UploadQuery {
    tenant: None,
    created_by: None,
    status: None,
    dataset: None,
    limit: 1000,
    before: None,
};

fn ids(uploads: &[Upload]) -> Vec<UploadId> {
    uploads.iter().map(|upload| upload.id).collect()
}

pub(crate) async fn uploads_are_listed_newest_first<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    ensure!(store.uploads(&ALL).await?.is_empty());
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(begin(store.as_ref()).await?);
    }
    // A later change of status does not change the order.
    fail(store.as_ref(), expected[1]).await?;
    expected.reverse();
    let listed = store.uploads(&ALL).await?;
    ensure!(ids(&listed) == expected, "{listed:?}");
    let newest = UploadQuery { limit: 2, ..ALL };
    ensure!(ids(&store.uploads(&newest).await?) == expected[..2]);
    Ok(())
}

pub(crate) async fn uploads_are_listed_by_status<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let receiving = [begin(store.as_ref()).await?, begin(store.as_ref()).await?];
    let sealed = begin(store.as_ref()).await?;
    ensure!(store.seal(first(sealed), &seal(1, 1)).await?);
    let completed = complete(store.as_ref(), 1, 1).await?;
    let failed = begin(store.as_ref()).await?;
    fail(store.as_ref(), failed).await?;
    for status in Status::ALL {
        let expected = match status {
            Status::Receiving => vec![receiving[1], receiving[0]],
            Status::Processing => vec![sealed],
            Status::Completed => vec![completed],
            Status::Failed => vec![failed],
            Status::Partial | Status::Cancelled | Status::Undone => vec![],
        };
        let query = UploadQuery {
            status: Some(status),
            ..ALL
        };
        let listed = store.uploads(&query).await?;
        ensure!(ids(&listed) == expected, "{status}: {listed:?}");
    }
    Ok(())
}

/// An upload that a key has sent, or that was sent without one.
async fn begin_with(store: &dyn Store, key: Option<&str>, new: NewUpload) -> Result<UploadId> {
    let new = NewUpload {
        created_by: key.map(str::to_owned),
        ..new
    };
    Ok(store.create(&new).await?.id)
}

pub(crate) async fn uploads_are_listed_by_the_key_that_sent_them<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let definition = sample_definition()?;
    let sales = key_of(Tenant::default(), "sales")?;
    create(store, &sales, &definition).await?;
    let mut created = Vec::new();
    for key in [Some("one"), Some("other"), None, Some("one"), Some("other")] {
        let plain = new_upload(UploadId::generate(), sample::columns());
        created.push((key, false, begin_with(store, key, plain).await?));
        let typed = new_typed_upload(UploadId::generate(), &sales, &definition);
        created.push((key, true, begin_with(store, key, typed).await?));
    }
    created.reverse();
    for key in ["one", "other", "One", ""] {
        for (tenant, is_typed) in [(false, false), (false, true), (true, false), (true, true)] {
            let expected = created
                .iter()
                .filter(|(by, typed, _)| *by == Some(key) && (*typed || !is_typed));
            let expected: Vec<UploadId> = expected.map(|(_, _, id)| *id).collect();
            for limit in [1, 100] {
                let query = UploadQuery {
                    tenant: tenant.then(Tenant::default),
                    created_by: Some(key.to_owned()),
                    dataset: is_typed.then(|| sales.name.clone()),
                    limit,
                    ..ALL
                };
                let listed = pages(store, &query).await?;
                ensure!(ids(&listed) == expected, "{query:?}: {listed:?}");
            }
        }
    }
    ensure!(store.uploads(&ALL).await?.len() == created.len());
    Ok(())
}

pub(crate) async fn the_uploads_of_tokens_are_listed_with_those_of_their_key<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let definition = sample_definition()?;
    let sales = key_of(Tenant::default(), "sales")?;
    create(store, &sales, &definition).await?;
    let senders = ["one", "one.a", "one.b", "one%a", "onex.a", "One.a", ".a"];
    let mut created = Vec::new();
    for sender in senders {
        let new = new_typed_upload(UploadId::generate(), &sales, &definition);
        created.push((sender, begin_with(store, Some(sender), new).await?));
    }
    begin_with(
        store,
        None,
        new_upload(UploadId::generate(), sample::columns()),
    )
    .await?;
    created.reverse();
    for (asked, expected) in [
        ("one", &["one", "one.a", "one.b"][..]),
        ("one.a", &["one.a"]),
        ("one.", &[]),
        ("one%", &[]),
        ("onex", &["onex.a"]),
        ("", &[".a"]),
    ] {
        let expected = created.iter().filter(|(by, _)| expected.contains(by));
        let expected: Vec<UploadId> = expected.map(|(_, id)| *id).collect();
        for (tenant, is_typed) in [(false, false), (true, false), (true, true)] {
            let query = UploadQuery {
                tenant: tenant.then(Tenant::default),
                created_by: Some(asked.to_owned()),
                dataset: is_typed.then(|| sales.name.clone()),
                ..ALL
            };
            let listed = store.uploads(&query).await?;
            ensure!(ids(&listed) == expected, "{asked}: {listed:?}");
            ensure!(listed.iter().all(|upload| upload.was_sent_by(asked)));
        }
    }
    Ok(())
}

pub(crate) async fn pages_neither_skip_nor_repeat_an_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    create_some(store.as_ref()).await?;
    check_pages(store.as_ref()).await
}

pub(crate) async fn uploads_created_at_the_same_time_are_listed_by_id<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let created = create_some(store.as_ref()).await?;
    fixture.execute(EQUALIZE_CREATED_AT).await?;
    let whole = store.uploads(&ALL).await?;
    ensure!(ids(&whole).into_iter().eq(created.into_iter().rev()));
    check_pages(store.as_ref()).await
}

/// Creates 25 uploads with random ids.
async fn create_some(store: &dyn Store) -> Result<BTreeSet<UploadId>> {
    let create = async |_| {
        let new = new_upload(Uuid::new_v4().into(), sample::columns());
        Ok::<_, anyhow::Error>(store.create(&new).await?.id)
    };
    let created: Vec<_> = try_join_all((0..25).map(create)).await?;
    Ok(created.into_iter().collect())
}

/// Checks that consecutive pages of any size make up the whole list.
async fn check_pages(store: &dyn Store) -> Result<()> {
    let whole = store.uploads(&ALL).await?;
    ensure!(whole.len() == 25);
    let sort_key = |upload: &Upload| (upload.created_at, upload.id);
    ensure!(whole.is_sorted_by(|newer, older| sort_key(newer) > sort_key(older)));
    for limit in [1, 4, 25] {
        let listed = pages(store, &UploadQuery { limit, ..ALL }).await?;
        ensure!(ids(&listed) == ids(&whole), "{limit} per page: {listed:?}");
    }
    Ok(())
}

/// All uploads of a list, read in pages of its length.
async fn pages(store: &dyn Store, list: &UploadQuery) -> Result<Vec<Upload>> {
    let mut all: Vec<Upload> = Vec::new();
    loop {
        let query = UploadQuery {
            before: all.last().map(|last| (last.created_at, last.id)),
            ..list.clone()
        };
        let page = store.uploads(&query).await?;
        ensure!(page.len() <= list.limit as usize);
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}
