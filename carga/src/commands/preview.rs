//! `carga preview`: how a file would be read, without reading all of it.

use std::path::Path;
use std::process::ExitCode;

use carga_common::settings::Settings;
use carga_intake::preview::preview_file;

use super::input::Input;
use crate::output::print;

pub(crate) async fn run(
    settings: &Settings,
    file: &Path,
    options: &[(String, String)],
) -> anyhow::Result<ExitCode> {
    let input = Input::open(file).await?;
    let preview = preview_file(options, &settings.intake, input.pieces()).await;
    let preview = preview.map_err(|refusal| anyhow::anyhow!("{}: {refusal}", file.display()))?;
    print(format!("{}\n", serde_json::to_string_pretty(&preview)?).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
