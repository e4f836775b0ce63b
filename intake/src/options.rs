//! What a client may say about its file. One table serves the query, the form, the command line
//! and the documentation.

use carga_common::sha256::Sha256;

use crate::csv::{CsvOptions, Encoding};
use crate::policy::{MaxRejects, OnDuplicate, OnError, Policy};
use crate::refusal::Refusal;

/// One option: its name, its values, and how it is set.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name in the query and the form.
    pub name: &'static str,
    /// Its name on the command line; empty if the command line does not have it.
    pub flag: &'static str,
    /// What it does, as one phrase.
    pub help: &'static str,
    /// The values it takes.
    pub takes: &'static str,
    /// What applies if the option is not given.
    pub default: &'static str,
    /// The placeholder for its value in the command line's help.
    pub placeholder: &'static str,
    /// Sets the option; `None` means that the value is not valid.
    set: fn(&mut Options, &str) -> Option<()>,
}

/// Every option. All others are refused, never ignored.
pub const OPTIONS: [OptionSpec; 9] = [
    OptionSpec {
        name: "delimiter",
        flag: "delimiter",
        help: "What separates fields",
        takes: "`,`, `;`, `tab`, `|` or any one character except a line end",
        default: "detected",
        placeholder: "CHARACTER",
        set: |options, value| set_value(&mut options.csv.delimiter, delimiter(value)),
    },
    OptionSpec {
        name: "quote",
        flag: "quote",
        help: "What encloses fields that contain delimiters or line ends",
        takes: "one ASCII punctuation character, or `none`",
        default: "`\"`",
        placeholder: "CHARACTER",
        set: |options, value| set_value(&mut options.csv.quote, quote(value)),
    },
    OptionSpec {
        name: "encoding",
        flag: "encoding",
        help: "How bytes become text",
        takes: "a label of the WHATWG Encoding Standard, such as utf-8 or windows-1252",
        default: "detected",
        placeholder: "LABEL",
        set: |options, value| set_value(&mut options.csv.encoding, encoding_for_label(value)),
    },
    OptionSpec {
        name: "header",
        flag: "header",
        help: "Whether the first record names the columns",
        takes: "`true` or `false`",
        default: "`true`",
        placeholder: "BOOL",
        set: |options, value| {
            let words = [("true", true), ("false", false)];
            set_value(&mut options.csv.header, parse_word(value, words))
        },
    },
    OptionSpec {
        name: "on_error",
        flag: "on-error",
        help: "Whether a row that does not fit is rejected by itself or fails the upload",
        takes: "`reject` or `abort`",
        default: "`reject`",
        placeholder: "ACTION",
        set: |options, value| {
            let words = [("reject", OnError::Reject), ("abort", OnError::Abort)];
            options.policy.on_error = parse_word(value, words)?;
            Some(())
        },
    },
    OptionSpec {
        name: "max_rejects",
        flag: "max-rejects",
        help: "How many rows may be rejected; more fail the upload",
        takes: "a number of rows, or a percentage such as `0.5%`",
        default: "any number",
        placeholder: "NUMBER",
        set: |options, value| {
            options.policy.max_rejects = max_rejects(value)?;
            Some(())
        },
    },
    OptionSpec {
        name: "on_duplicate",
        flag: "on-duplicate",
        help: "Whether a file that was imported before is imported again or refused",
        takes: "`allow` or `reject`",
        default: "`allow`",
        placeholder: "ACTION",
        set: |options, value| {
            let words = [
                ("allow", OnDuplicate::Allow),
                ("reject", OnDuplicate::Reject),
            ];
            options.on_duplicate = parse_word(value, words)?;
            Some(())
        },
    },
    OptionSpec {
        name: "filename",
        flag: "",
        help: "The name to keep for the file",
        takes: "a name",
        default: "the part's file name",
        placeholder: "NAME",
        set: |options, value| set_value(&mut options.filename, Some(clean_filename(value))),
    },
    OptionSpec {
        name: "sha256",
        flag: "sha256",
        help: "The SHA-256 that the file must have",
        takes: "64 hexadecimal digits",
        default: "not checked",
        placeholder: "HEX",
        set: |options, value| set_value(&mut options.sha256, value.parse().ok()),
    },
];

/// The options of one upload.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The names of the options that were given.
    given: Vec<&'static str>,
    /// The name that is recorded for the file.
    pub(crate) filename: Option<String>,
    /// The SHA-256 that the file must have.
    pub sha256: Option<Sha256>,
    /// How to read the file.
    pub(crate) csv: CsvOptions,
    /// When rejected rows fail the upload.
    pub(crate) policy: Policy,
    /// What happens to a file that was imported before.
    pub(crate) on_duplicate: OnDuplicate,
}

/// The longest file name kept.
const FILENAME_CHARS: usize = 255;

impl Options {
    /// Reads all options from a query.
    pub fn from_query(query: &[(String, String)]) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for (name, value) in query {
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// Sets one option; each may be given once.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let spec = self.settable(name)?;
        self.given.push(spec.name);
        (spec.set)(self, value).ok_or_else(|| Refusal::malformed_option(name, spec.takes))?;
        let quote = self.csv.quote.unwrap_or(Some(b'"')).map(char::from);
        if self.csv.delimiter.is_some() && self.csv.delimiter == quote {
            let takes = "a character other than `quote`";
            return Err(Refusal::malformed_option("delimiter", takes));
        }
        Ok(())
    }

    /// Checks that the option exists and was not given before. A form's part can then be refused
    /// without its value.
    pub fn check_name(&self, name: &str) -> Result<(), Refusal> {
        self.settable(name).map(|_| ())
    }

    fn settable(&self, name: &str) -> Result<&'static OptionSpec, Refusal> {
        const ALL: &[OptionSpec] = &OPTIONS;
        let Some(spec) = ALL.iter().find(|spec| spec.name == name) else {
            let mut known = OPTIONS.map(|spec| spec.name);
            known.sort_unstable();
            return Err(Refusal::unknown_option(name, &known));
        };
        if self.given.contains(&spec.name) {
            return Err(Refusal::repeated_option(name));
        }
        Ok(spec)
    }

    /// Uses the part's own file name if no option gives a name.
    pub fn default_filename(&mut self, name: Option<&str>) {
        if self.filename.is_none() {
            self.filename = name.map(clean_filename).filter(|name| !name.is_empty());
        }
    }

    /// Uses the encoding in the headers of the request or the part if no option gives an encoding.
    pub fn default_encoding(&mut self, encoding: Option<&'static Encoding>) {
        self.csv.encoding = self.csv.encoding.or(encoding);
    }

    /// Compares the digest of the file with the one announced.
    pub(crate) fn check_sha256(&self, found: Sha256) -> Result<(), Refusal> {
        match self.sha256 {
            Some(announced) if announced != found => {
                let message = format!("expected SHA-256 {announced}, found {found}");
                Err(Refusal::unprocessable("sha256_mismatch", message))
            }
            _ => Ok(()),
        }
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

/// The encoding with this label. `None` if the label is unknown or its encoding must not be
/// decoded.
pub fn encoding_for_label(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label.as_bytes())
}

fn set_value<T>(option: &mut Option<T>, value: Option<T>) -> Option<()> {
    *option = Some(value?);
    Some(())
}

fn parse_word<T: Copy, const N: usize>(value: &str, words: [(&str, T); N]) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, meaning)| *meaning)
}

fn delimiter(value: &str) -> Option<char> {
    let mut characters = value.chars();
    match (value, characters.next(), characters.next()) {
        ("tab", ..) => Some('\t'),
        (_, Some(delimiter), None) if !matches!(delimiter, '\n' | '\r' | '\0') => Some(delimiter),
        _ => None,
    }
}

fn quote(value: &str) -> Option<Option<u8>> {
    match value.as_bytes() {
        b"none" => Some(None),
        [quote] if quote.is_ascii_punctuation() => Some(Some(*quote)),
        _ => None,
    }
}

fn max_rejects(value: &str) -> Option<MaxRejects> {
    match value.strip_suffix('%') {
        None => value.parse().ok().map(MaxRejects::Rows),
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(MaxRejects::Percent),
    }
}

/// Removes control characters, which terminals and databases cannot take, and shortens the
/// name.
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
    fn the_documentation_lists_exactly_these_options() {
        let document = include_str!("../../docs/api.md");
        let (_, table) = document.split_once("| Option |").unwrap();
        let rows = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let documented: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        let mut names = OPTIONS.map(|spec| spec.name).to_vec();
        names.sort_unstable();
        let mut sorted = documented.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, names);
    }

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
    fn a_digest_is_accepted_in_either_case_and_checked() {
        let mut options = Options::default();
        options.set("sha256", &"AB".repeat(32)).unwrap();
        assert!(options.check_sha256([0xab; 32].into()).is_ok());
        let refusal = options.check_sha256([0xcd; 32].into()).unwrap_err();
        assert_eq!(refusal.failure.code, "sha256_mismatch");
    }

    #[test]
    fn option_values_are_parsed_as_the_contract_defines_them() {
        let parsed = |name: &str, value: &str| {
            let mut options = Options::default();
            options.set(name, value).map(|()| options)
        };
        let csv = |name: &str, value: &str| parsed(name, value).unwrap().csv;
        assert_eq!(csv("delimiter", "tab").delimiter, Some('\t'));
        assert_eq!(csv("delimiter", "§").delimiter, Some('§'));
        assert_eq!(csv("quote", "'").quote, Some(Some(b'\'')));
        assert_eq!(csv("quote", "none").quote, Some(None));
        assert_eq!(
            csv("encoding", "Latin1").encoding.unwrap().name(),
            "windows-1252"
        );
        assert_eq!(csv("header", "false").header, Some(false));
        let policy = |name: &str, value: &str| parsed(name, value).unwrap().policy;
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
            let refusal = parsed(name, value).unwrap_err();
            assert_eq!(refusal.failure.code, "malformed_option", "{name}={value}");
            assert!(refusal.failure.message.contains(name));
        }
    }
}
