//! Sets options by their names. An option that is unknown, not valid or given twice is refused.
//! Only a repeatable one may be given several times.

use super::table::{OF_DATASETS, OPTIONS, OptionSpec, REPEATABLE};
use super::upload::Options;
use crate::refusal::Refusal;

impl Options {
    /// Reads and checks all options of a file.
    pub fn from_query(query: &[(String, String)]) -> Result<Self, Refusal> {
        let options = Self::unchecked(query)?;
        options.check()?;
        Ok(options)
    }

    /// Reads the options of a query. Others may follow, so they are not checked against each other.
    pub fn unchecked(query: &[(String, String)]) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for (name, value) in query {
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// Sets one option. Each may be given once, except those in [`REPEATABLE`].
    /// [`check`](Self::check) follows the last one.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let spec = self.settable(name)?;
        self.given.push((spec.name, value.to_owned()));
        (spec.set)(self, value).ok_or_else(|| spec.refusal(value))
    }

    /// Checks the options against each other. Call it after the last [`set`](Self::set), so that
    /// the order of the options does not matter.
    pub fn check(&self) -> Result<(), Refusal> {
        let quote = self.csv.quote.unwrap_or(Some(b'"')).map(char::from);
        let escape = self.csv.escape.flatten().map(char::from);
        if self.csv.delimiter.is_some() && [quote, escape].contains(&self.csv.delimiter) {
            let takes = "a character other than `quote` and `escape`";
            return Err(Refusal::malformed_option("delimiter", takes));
        }
        match OF_DATASETS.iter().find(|name| self.is_given(name)) {
            Some(name) if self.dataset.is_none() => {
                // Completes the message "option `mode` takes …".
                let takes = "effect only with the option `dataset`";
                Err(Refusal::malformed_option(name, takes))
            }
            _ => Ok(()),
        }
    }

    /// The same options with another value for one of them. `None` if the value is not valid.
    pub(crate) fn with(&self, name: &str, value: &str) -> Option<Self> {
        let others = self.given.iter().filter(|(given, _)| *given != name);
        let mut options = Self::default();
        for (name, value) in others {
            options.set(name, value).ok()?;
        }
        // The encoding and the header may come from HTTP headers, which are not in `given`.
        options.default_encoding(self.csv.encoding.filter(|_| name != "encoding"));
        options.default_header(self.csv.header.filter(|_| name != "header"));
        options.set(name, value).ok()?;
        options.check().ok()?;
        Some(options)
    }

    /// Checks that the option exists and can be set. So a part of a form can be refused before its
    /// value is read.
    pub fn check_name(&self, name: &str) -> Result<(), Refusal> {
        self.settable(name).map(|_| ())
    }

    fn settable(&self, name: &str) -> Result<&'static OptionSpec, Refusal> {
        let Some(spec) = OPTIONS.iter().find(|spec| spec.name == name) else {
            let mut known = OPTIONS.map(|spec| spec.name);
            known.sort_unstable();
            return Err(Refusal::unknown_option(name, &known));
        };
        if self.is_given(spec.name) && !REPEATABLE.contains(&spec.name) {
            return Err(Refusal::repeated_option(name));
        }
        Ok(spec)
    }
}

impl Refusal {
    /// An unknown option. `known` lists the options of the route.
    pub fn unknown_option(name: &str, known: &[&str]) -> Self {
        let known = match known {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        let message = format!("unknown option `{name}`; known options: {known}");
        Self::malformed("unknown_option", message)
    }

    /// An option that is given twice.
    pub fn repeated_option(name: &str) -> Self {
        Self::malformed("repeated_option", format!("option `{name}` is given twice"))
    }

    /// An option with an invalid value. `takes` describes the valid ones.
    pub fn malformed_option(name: &str, takes: &str) -> Self {
        Self::malformed("malformed_option", format!("option `{name}` takes {takes}"))
    }
}
