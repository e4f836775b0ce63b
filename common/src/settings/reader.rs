//! Reads variables one by one and collects what is wrong with them, so that all faults are told at once.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Everything that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("the settings do not hold:\n  {}", .0.join("\n  "))]
pub struct SettingsError(pub(super) Vec<String>);

/// Looks up variables and notes faults.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            faults: Vec::new(),
        }
    }

    /// The variable's value; an empty one counts as not set, as in a `.env` file.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    pub(super) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// A value that must be there.
    pub(super) fn required(&mut self, name: &str, example: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.fault(format!("{name} is not set; example: {name}={example}"));
            String::new()
        })
    }

    /// A value with a default.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> T {
        let Some(text) = self.text(name) else {
            return default;
        };
        text.parse().unwrap_or_else(|error| {
            self.fault(format!("{name}={text}: {error}"));
            default
        })
    }

    /// A number within bounds.
    pub(super) fn number<T>(&mut self, name: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr<Err: Display> + PartialOrd + Display + Copy,
    {
        let value = self.parsed(name, default);
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

    /// The value of everything read, or all faults.
    pub(super) fn finish<T>(self, value: T) -> Result<T, SettingsError> {
        if self.faults.is_empty() {
            Ok(value)
        } else {
            Err(SettingsError(self.faults))
        }
    }
}
