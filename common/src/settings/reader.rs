//! Reads the variables one by one and collects their faults, so that all faults are reported at
//! once.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::secret::SecretUrl;

pub(super) const MIB: usize = 1 << 20;

/// Settings that this release renamed: the current name, and the former name, which still works.
const RENAMED: [(&str, &str); 1] = [("CARGA_MAX_DECOMPRESSED_BYTES", "CARGA_MAX_EXPANDED_BYTES")];

/// Everything that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("invalid settings:\n  {}", .0.join("\n  "))]
pub struct SettingsError(pub(super) Vec<String>);

/// A setting as it is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The variable.
    pub name: String,
    /// Its value, with secrets masked; `None` if it is not set and has no default.
    pub value: Option<String>,
    /// Whether the variable is set; otherwise the value is the default.
    pub given: bool,
}

/// Looks up variables, and collects their effective values and their faults.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    effective: Vec<Effective>,
    faults: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            effective: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// The variable's value, also under its former name. An empty value counts as not set, as in a
    /// `.env` file.
    fn look_up(&self, name: &str) -> Option<String> {
        let value = |name: &str| (self.lookup)(name).filter(|value| !value.is_empty());
        value(name).or_else(|| {
            let (_, former) = RENAMED.iter().find(|(current, _)| *current == name)?;
            let former_value = value(former)?;
            tracing::warn!("{former} is now called {name}; the next release ignores {former}");
            Some(former_value)
        })
    }

    pub(super) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub(super) fn record(&mut self, name: &str, value: impl Into<Option<String>>, given: bool) {
        self.effective.push(Effective {
            name: name.to_owned(),
            value: value.into(),
            given,
        });
    }

    /// The unparsed text of a variable. The default is only recorded as the effective value; it is
    /// not returned.
    pub(super) fn optional<'d>(
        &mut self,
        name: &str,
        default: impl Into<Option<&'d str>>,
    ) -> Option<String> {
        let value = self.look_up(name);
        let default = default.into().map(str::to_owned);
        self.record(name, value.clone().or(default), value.is_some());
        value
    }

    /// A text with a default.
    pub(super) fn text(&mut self, name: &str, default: &str) -> String {
        self.optional(name, default)
            .unwrap_or_else(|| default.to_owned())
    }

    /// A URL that may contain a password. Without a value, nothing is recorded.
    pub(super) fn secret(&mut self, name: &str) -> Option<SecretUrl> {
        let url = SecretUrl::new(self.look_up(name)?);
        self.record(name, url.to_string(), true);
        Some(url)
    }

    /// A URL that may contain a password, and that has no default.
    pub(super) fn optional_secret(&mut self, name: &str) -> Option<SecretUrl> {
        let url = self.secret(name);
        if url.is_none() {
            self.record(name, None::<String>, false);
        }
        url
    }

    /// A URL that may contain a secret, or the path of a file. Only a URL is masked.
    pub(super) fn url_or_path(&mut self, name: &str) -> Option<SecretUrl> {
        let value = self.look_up(name).map(SecretUrl::new);
        let shown = value.as_ref().map(|value| match value.expose() {
            path if !path.contains("://") => path.to_owned(),
            _ => value.to_string(),
        });
        self.record(name, shown, value.is_some());
        value
    }

    /// A password, which is never shown.
    pub(super) fn password(&mut self, name: &str) -> Option<String> {
        let password = self.look_up(name);
        let shown = password.as_ref().map(|_| "***".to_owned());
        self.record(name, shown, password.is_some());
        password
    }

    /// A value with a default.
    pub(super) fn parsed<T: FromStr<Err: Display> + Display>(
        &mut self,
        name: &str,
        default: T,
    ) -> T {
        self.parsed_or(name, default, |_, error| error.to_string())
    }

    /// A value with a default. `describe` gives the reason why a text cannot be parsed.
    fn parsed_or<T: FromStr + Display>(
        &mut self,
        name: &str,
        default: T,
        describe: impl FnOnce(&str, T::Err) -> String,
    ) -> T {
        let default_text = default.to_string();
        let Some(text) = self.optional(name, default_text.as_str()) else {
            return default;
        };
        text.parse().unwrap_or_else(|error| {
            let reason = describe(&text, error);
            self.fault(format!("{name}={text}: {reason}"));
            default
        })
    }

    /// A number within bounds.
    pub(super) fn number<T>(&mut self, name: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr<Err: Display> + PartialOrd + Display + Copy,
    {
        let is_number = |text: &str| text.bytes().all(|byte| b"0123456789-+".contains(&byte));
        // The parser reports an invalid digit, which is misleading for a word such as `many`.
        let value = self.parsed_or(name, default, |text, error: T::Err| match is_number(text) {
            true => error.to_string(),
            false => "not a number".to_owned(),
        });
        if range.contains(&value) {
            return value;
        }
        let (least, most) = range.into_inner();
        self.fault(format!(
            "{name}={value}: must be between {least} and {most}"
        ));
        default
    }

    /// A time in whole seconds.
    pub(super) fn seconds(&mut self, name: &str, default: u64, most: u64) -> Duration {
        Duration::from_secs(self.number(name, default, 1..=most))
    }

    /// A time in milliseconds.
    pub(super) fn milliseconds(&mut self, name: &str, default: u64, most: u64) -> Duration {
        Duration::from_millis(self.number(name, default, 1..=most))
    }

    /// All effective settings, or all faults.
    pub(super) fn finish(self) -> Result<Vec<Effective>, SettingsError> {
        if self.faults.is_empty() {
            Ok(self.effective)
        } else {
            Err(SettingsError(self.faults))
        }
    }
}
