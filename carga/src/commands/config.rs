//! `carga config`: the settings as an `.env` file, in which defaults are commented out.

use std::process::ExitCode;

use carga_common::settings::Settings;

use crate::output::print;

/// The AWS SDK reads these variables by itself. The flag marks secrets, which are masked.
const AWS: [(&str, bool); 5] = [
    ("AWS_REGION", false),
    ("AWS_PROFILE", false),
    ("AWS_ACCESS_KEY_ID", false),
    ("AWS_SECRET_ACCESS_KEY", true),
    ("AWS_SESSION_TOKEN", true),
];

pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for setting in &settings.effective {
        let mark = if setting.given { "" } else { "# " };
        let value = setting.value.as_deref().unwrap_or_default();
        text.push_str(&format!("{mark}{}={value}\n", setting.name));
    }
    for (name, secret) in AWS {
        if let Ok(value) = std::env::var(name) {
            let value = if secret { "***" } else { &value };
            text.push_str(&format!("{name}={value}\n"));
        }
    }
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
