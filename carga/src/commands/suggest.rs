//! `carga dataset suggest`: a definition for a file. It needs neither a server nor a store.

use std::path::Path;

use anyhow::anyhow;
use carga_common::settings::Settings;
use carga_intake::suggest::{Evidence, SuggestedDataset, suggest_for_file};

use super::input::Input;
use crate::output::{count_rows, printable, printable_json};
use crate::table::table;

/// Returns the definition, which `dataset put` reads. The reasons go to standard error, so that the
/// output is a definition and nothing else.
pub(super) async fn run(
    settings: &Settings,
    file: &Path,
    options: &[(String, String)],
    is_json: bool,
) -> anyhow::Result<String> {
    let input = Input::open(file).await?;
    let suggested = suggest_for_file(options, &settings.intake, input.pieces()).await;
    let suggested = suggested.map_err(|refusal| anyhow!("{}: {refusal}", file.display()))?;
    if is_json {
        return Ok(printable_json(&suggested)?);
    }
    eprint!("{}", reasons(&suggested));
    Ok(printable_json(&suggested.dataset)?)
}

/// A line for each column, and the cells that do not fit.
fn reasons(suggested: &SuggestedDataset) -> String {
    let heading = ["COLUMN", "TYPE", "FITS", "NULLS", "WHY"].map(str::to_owned);
    let mut rows = vec![heading.to_vec()];
    rows.extend(suggested.evidence.iter().map(line));
    let mut text = table(&rows, usize::MAX);
    if suggested.rejected > 0 {
        let rejected = count_rows(suggested.rejected);
        text.push_str(&format!(
            "{rejected} would be rejected before the conversion\n"
        ));
    }
    printable(&text)
}

fn line(evidence: &Evidence) -> Vec<String> {
    let mut why = evidence.why.clone();
    if !evidence.does_not_fit.is_empty() {
        let cells = evidence.does_not_fit.iter().map(|cell| format!("`{cell}`"));
        let cells: Vec<String> = cells.collect();
        why.push_str(&format!(": {}", cells.join(", ")));
    }
    vec![
        evidence.column.clone(),
        evidence.kind.to_string(),
        evidence.fits.to_string(),
        evidence.nulls.to_string(),
        why,
    ]
}
