//! What a client may say about its file, in the query or as form fields before the file.

use carga_common::sha256::Sha256;

use super::policy::{MaxRejects, OnDuplicate, OnError, Policy};
use crate::csv::{CsvOptions, Encoding};
use crate::problem::Refusal;

/// Everything else is refused, never ignored.
const KNOWN: [&str; 9] = [
    "delimiter",
    "encoding",
    "filename",
    "header",
    "max_rejects",
    "on_duplicate",
    "on_error",
    "quote",
    "sha256",
];

/// The options of one upload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The names of those that were given.
    given: Vec<&'static str>,
    /// The name to keep for the file.
    pub(crate) filename: Option<String>,
    /// The SHA-256 the file must have.
    pub(crate) sha256: Option<Sha256>,
    /// How to read the file.
    pub(crate) csv: CsvOptions,
    /// What to do about rows that are rejected.
    pub(crate) policy: Policy,
    /// What to do about a file that was imported before.
    pub(crate) on_duplicate: OnDuplicate,
}

/// The longest file name kept.
const FILENAME_CHARS: usize = 255;

impl Options {
    /// Takes the query.
    pub(crate) fn from_query(query: &[(String, String)]) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for (name, value) in query {
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// Takes one option; twice is once too often.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let Some(name) = KNOWN.into_iter().find(|known| *known == name) else {
            return Err(unknown(name, &KNOWN));
        };
        if self.given.contains(&name) {
            let message = format!("option `{name}` is given twice");
            return Err(Refusal::bad_request("repeated_option", message));
        }
        self.given.push(name);
        match name {
            "delimiter" => self.csv.delimiter = Some(delimiter(value)?),
            "encoding" => self.csv.encoding = Some(encoding(value)?),
            "filename" => self.filename = Some(clean_filename(value)),
            "header" => {
                self.csv.header = Some(one_of(name, value, [("true", true), ("false", false)])?)
            }
            "max_rejects" => self.policy.max_rejects = max_rejects(value)?,
            "on_duplicate" => {
                let words = [
                    ("allow", OnDuplicate::Allow),
                    ("reject", OnDuplicate::Reject),
                ];
                self.on_duplicate = one_of(name, value, words)?;
            }
            "on_error" => {
                let words = [("reject", OnError::Reject), ("abort", OnError::Abort)];
                self.policy.on_error = one_of(name, value, words)?;
            }
            "quote" => self.csv.quote = Some(quote(value)?),
            _ => self.sha256 = Some(digest(value)?),
        }
        let quote = self.csv.quote.unwrap_or(Some(b'"')).map(char::from);
        if self.csv.delimiter.is_some() && self.csv.delimiter == quote {
            return Err(malformed("delimiter", "another character than `quote`"));
        }
        Ok(())
    }

    /// The part's own file name, where no option names one.
    pub(crate) fn default_filename(&mut self, name: Option<&str>) {
        if self.filename.is_none() {
            self.filename = name.map(clean_filename).filter(|name| !name.is_empty());
        }
    }

    /// The encoding that the request's head names, where no option does.
    pub(crate) fn default_encoding(&mut self, encoding: Option<&'static Encoding>) {
        self.csv.encoding = self.csv.encoding.or(encoding);
    }

    /// Checks the digest of what came against the one announced.
    pub(crate) fn check_sha256(&self, found: Sha256) -> Result<(), Refusal> {
        match self.sha256 {
            Some(announced) if announced != found => {
                let message = format!("the file has SHA-256 {found}, {announced} was announced");
                Err(Refusal::unprocessable("sha256_mismatch", message))
            }
            _ => Ok(()),
        }
    }
}

/// The refusal of an option that is not known, with those that are.
pub(crate) fn unknown(name: &str, known: &[&str]) -> Refusal {
    let known = match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    let message = format!("option `{name}` is not known here; known: {known}");
    Refusal::bad_request("unknown_option", message)
}

/// The refusal of a value that is none.
pub(crate) fn malformed(name: &str, takes: &str) -> Refusal {
    Refusal::bad_request("malformed_option", format!("option `{name}` takes {takes}"))
}

/// One of a few words.
pub(crate) fn one_of<T: Copy, const N: usize>(
    name: &str,
    value: &str,
    words: [(&str, T); N],
) -> Result<T, Refusal> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words = words.map(|(word, _)| format!("`{word}`"));
        malformed(name, &words.join(" or "))
    })
}

fn delimiter(value: &str) -> Result<char, Refusal> {
    let mut characters = value.chars();
    match (value, characters.next(), characters.next()) {
        ("tab", ..) => Ok('\t'),
        (_, Some(delimiter), None) if !matches!(delimiter, '\n' | '\r' | '\0') => Ok(delimiter),
        _ => Err(malformed(
            "delimiter",
            "`,`, `;`, `tab`, `|` or any one character but a line end",
        )),
    }
}

fn quote(value: &str) -> Result<Option<u8>, Refusal> {
    match value.as_bytes() {
        b"none" => Ok(None),
        [quote] if quote.is_ascii_punctuation() => Ok(Some(*quote)),
        _ => Err(malformed(
            "quote",
            "one ASCII punctuation character, or `none`",
        )),
    }
}

fn encoding(value: &str) -> Result<&'static Encoding, Refusal> {
    encoding_labelled(value).ok_or_else(|| {
        malformed(
            "encoding",
            "a label of the WHATWG Encoding Standard, as utf-8 or windows-1252",
        )
    })
}

/// A label that stands for an encoding; some stand for those that must not be decoded.
pub(crate) fn encoding_labelled(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label.as_bytes())
}

fn max_rejects(value: &str) -> Result<MaxRejects, Refusal> {
    let parsed = match value.strip_suffix('%') {
        None => value.parse().ok().map(MaxRejects::Rows),
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(MaxRejects::Percent),
    };
    parsed.ok_or_else(|| malformed("max_rejects", "a number of rows, or a percentage as `0.5%`"))
}

fn digest(text: &str) -> Result<Sha256, Refusal> {
    text.parse()
        .map_err(|_| malformed("sha256", "64 hexadecimal digits"))
}

/// A label for people: never a path, never anything that a terminal or the database chokes on.
fn clean_filename(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(FILENAME_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_options_are_refused_by_name() {
        let mut options = Options::default();
        let refusal = options.set("dataset", "x").unwrap_err();
        assert_eq!(refusal.failure.code, "unknown_option");
        assert!(refusal.failure.message.contains("dataset"));
        options.set("filename", "a.csv").unwrap();
        let refusal = options.set("filename", "b.csv").unwrap_err();
        assert_eq!(refusal.failure.code, "repeated_option");
    }

    #[test]
    fn a_digest_is_taken_in_either_case_and_checked() {
        let mut options = Options::default();
        options.set("sha256", &"AB".repeat(32)).unwrap();
        assert!(options.check_sha256([0xab; 32].into()).is_ok());
        let refusal = options.check_sha256([0xcd; 32].into()).unwrap_err();
        assert_eq!(refusal.failure.code, "sha256_mismatch");
    }

    #[test]
    fn values_are_taken_as_the_contract_names_them() {
        let taken = |name: &str, value: &str| {
            let mut options = Options::default();
            options.set(name, value).map(|()| options)
        };
        let csv = |name: &str, value: &str| taken(name, value).unwrap().csv;
        assert_eq!(csv("delimiter", "tab").delimiter, Some('\t'));
        assert_eq!(csv("delimiter", "§").delimiter, Some('§'));
        assert_eq!(csv("quote", "'").quote, Some(Some(b'\'')));
        assert_eq!(csv("quote", "none").quote, Some(None));
        assert_eq!(
            csv("encoding", "Latin1").encoding.unwrap().name(),
            "windows-1252"
        );
        assert_eq!(csv("header", "false").header, Some(false));
        let policy = |name: &str, value: &str| taken(name, value).unwrap().policy;
        assert_eq!(policy("on_error", "abort").on_error, OnError::Abort);
        assert_eq!(
            policy("max_rejects", "10").max_rejects,
            MaxRejects::Rows(10)
        );
        assert_eq!(
            policy("max_rejects", "0.5%").max_rejects,
            MaxRejects::Percent(0.5)
        );
        for (name, value) in [
            ("delimiter", ""),
            ("delimiter", ",,"),
            ("delimiter", "\n"),
            ("delimiter", "\""),
            ("quote", "ab"),
            ("quote", "é"),
            ("encoding", "klingon"),
            ("encoding", "hz-gb-2312"),
            ("header", "yes"),
            ("on_error", "ignore"),
            ("max_rejects", "-1"),
            ("max_rejects", "101%"),
            ("max_rejects", "NaN%"),
            ("on_duplicate", "maybe"),
            ("sha256", "abc"),
        ] {
            let refusal = taken(name, value).unwrap_err();
            assert_eq!(refusal.failure.code, "malformed_option", "{name}={value}");
            assert!(refusal.failure.message.contains(name));
        }
    }
}
