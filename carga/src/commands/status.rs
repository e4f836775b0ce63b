//! `carga status`.

use std::process::ExitCode;

use carga_api::view::UploadView;
use carga_common::settings::Settings;
use carga_common::store::UploadQuery;
use carga_common::tenant::Tenant;
use carga_common::upload::Upload;
use indicatif::HumanCount;

use super::{find, store_to_read};
use crate::arguments::UploadRef;
use crate::output::{one_line, print, printable_json};

const LATEST: u32 = 20;

pub(crate) async fn run(
    settings: &Settings,
    upload: Option<UploadRef>,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let text = if let Some(upload) = upload {
        let upload = find(store.as_ref(), upload, &[]).await?;
        let view = UploadView::counted(upload, store.as_ref(), false).await?;
        printable_json(&view)?
    } else {
        let query = UploadQuery {
            tenant: Some(Tenant::default()),
            created_by: None,
            status: None,
            dataset: None,
            limit: LATEST,
            before: None,
        };
        let mut table = format!(
            "{:36}  {:10}  {:>13}  {:20}  FILE\n",
            "UPLOAD", "STATUS", "ROWS", "CREATED"
        );
        for upload in store.uploads(&query).await? {
            table.push_str(&line(&upload));
        }
        table
    };
    store.close().await;
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn line(upload: &Upload) -> String {
    let mut file = upload.filename.clone().unwrap_or_else(|| "-".to_owned());
    if let Some(dataset) = &upload.dataset {
        file.push_str(&format!(" (dataset {})", dataset.name));
    }
    let mut line = format!(
        "{}  {:10}  {:>13}  {:.0}  {}\n",
        upload.public_id,
        upload.status.name(),
        HumanCount(upload.rows_read).to_string(),
        upload.created_at,
        one_line(&file),
    );
    if let Some(failure) = &upload.failure {
        let reason = format!("{}: {}", failure.code, failure.message);
        line.push_str(&format!("    {}\n", one_line(&reason)));
    }
    line
}
