//! The table of every option: its names, its values, and how it is set.

use carga_common::dataset::time_format::check_format;
use carga_common::dataset::{ColumnType, DatasetName, Mode};

use super::upload::Options;
use super::values::{
    character, clean_filename, delimiter, max_rejects, parse_bool, parse_word, quote, set_value,
    text,
};
use crate::csv::{Charset, Names, column_names};
use crate::matching::UnknownColumns;
use crate::policy::{OnDuplicate, OnError};
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
    pub(super) set: fn(&mut Options, &str) -> Option<()>,
}

impl OptionSpec {
    /// The refusal of a value that is not valid. For the name of a dataset and the format of dates,
    /// it has the rule that the value breaks.
    pub(super) fn refusal(&self, value: &str) -> Refusal {
        let name = self.name;
        let rule = match name {
            "dataset" => {
                let parsed = value.parse::<DatasetName>();
                parsed.err().map(|fault| fault.to_string())
            }
            "date_format" => check_format(ColumnType::Date, value).err(),
            _ => None,
        };
        match rule {
            Some(rule) => {
                Refusal::malformed("malformed_option", format!("option `{name}`: {rule}"))
            }
            None => Refusal::malformed_option(name, self.takes),
        }
    }
}

/// The options of imports into a dataset: `dataset`, and those that have an effect only with it.
pub const OF_DATASETS: [&str; 7] = [
    "dataset",
    "null",
    "decimal",
    "date_format",
    "unknown_columns",
    "mode",
    "atomic",
];

/// The options that may be given several times.
pub const REPEATABLE: [&str; 1] = ["null"];

/// Every option. All others are refused, never ignored.
pub const OPTIONS: [OptionSpec; 22] = [
    OptionSpec {
        name: "delimiter",
        flag: "delimiter",
        help: "What separates fields",
        takes: "`,`, `;`, `tab`, `|` or any one character in UTF-8 except a line end",
        default: "detected",
        placeholder: "CHARACTER",
        set: |options, value| set_value(&mut options.csv.delimiter, delimiter(value)),
    },
    OptionSpec {
        name: "quote",
        flag: "quote",
        help: "What encloses fields that contain delimiters or line ends",
        takes: "one ASCII punctuation character, or `none`",
        default: "detected: `\"`, or `'` if only that quotes",
        placeholder: "CHARACTER",
        set: |options, value| set_value(&mut options.csv.quote, quote(value)),
    },
    OptionSpec {
        name: "escape",
        flag: "escape",
        help: "What hides a quote inside a quoted field, besides a doubled quote",
        takes: "one ASCII punctuation character, or `none`",
        default: "detected: `\\` if quotes need it",
        placeholder: "CHARACTER",
        set: |options, value| set_value(&mut options.csv.escape, quote(value)),
    },
    OptionSpec {
        name: "encoding",
        flag: "encoding",
        help: "How bytes become text",
        takes: "a label of the WHATWG Encoding Standard, Python or ICU, such as utf-8, windows-1252 or cp850",
        default: "detected; a byte order mark always wins",
        placeholder: "LABEL",
        set: |options, value| set_value(&mut options.csv.encoding, Charset::for_label(value)),
    },
    OptionSpec {
        name: "skip",
        flag: "skip",
        help: "How many lines above the header are not read",
        takes: "a number of lines",
        default: "detected: titles, comments, blank lines and `sep=;`",
        placeholder: "LINES",
        set: |options, value| set_value(&mut options.csv.skip, value.parse().ok()),
    },
    OptionSpec {
        name: "header",
        flag: "header",
        help: "Whether the first record names the columns",
        takes: "`true` or `false`",
        default: "detected; `true` if nothing speaks against it",
        placeholder: "BOOL",
        set: |options, value| set_value(&mut options.csv.header, parse_bool(value)),
    },
    OptionSpec {
        name: "columns",
        flag: "columns",
        help: "The names of the columns, instead of those in the file",
        takes: "one CSV record with a different name for each column",
        default: "the file's header",
        placeholder: "NAMES",
        set: |options, value| set_value(&mut options.csv.columns, column_names(value)),
    },
    OptionSpec {
        name: "names",
        flag: "names",
        help: "Whether missing and repeated names are repaired or refuse the file",
        takes: "`repair` or `strict`",
        default: "`repair`",
        placeholder: "ACTION",
        set: |options, value| {
            let words = [("repair", Names::Repair), ("strict", Names::Strict)];
            options.csv.names = parse_word(value, words)?;
            Some(())
        },
    },
    OptionSpec {
        name: "trim",
        flag: "trim",
        help: "Whether blanks around unquoted cells are removed",
        takes: "`true` or `false`",
        default: "only a blank that follows every delimiter",
        placeholder: "BOOL",
        set: |options, value| set_value(&mut options.csv.trim, parse_bool(value)),
    },
    OptionSpec {
        name: "short_rows",
        flag: "short-rows",
        help: "Whether a row that lacks cells at its end is rejected or filled with NULL",
        takes: "`reject` or `pad`",
        default: "`reject`",
        placeholder: "ACTION",
        set: |options, value| {
            let words = [("reject", false), ("pad", true)];
            options.csv.pad_short_rows = parse_word(value, words)?;
            Some(())
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
    OptionSpec {
        name: "dataset",
        flag: "dataset",
        help: "The dataset whose table gets the rows, with cells of its types",
        takes: "the name of a dataset",
        default: "the landing table, as text",
        placeholder: "NAME",
        set: |options, value| set_value(&mut options.dataset, value.parse().ok()),
    },
    OptionSpec {
        name: "null",
        flag: "null",
        help: "Which cells mean NULL in columns of the dataset without a list of their own",
        takes: "a text in UTF-8 without NUL, given once for each text, at most 1000 times",
        default: "the list `null` of the dataset",
        placeholder: "TEXT",
        set: |options, value| {
            let texts = options.reading.null.get_or_insert_default();
            texts.push(text(value)?);
            options.reading.check().ok()
        },
    },
    OptionSpec {
        name: "decimal",
        flag: "decimal",
        help: "The decimal mark in `numeric` and `float` columns that declare none",
        takes: "one character in UTF-8 that is not a letter, a digit, a sign or a blank",
        default: "`.`",
        placeholder: "CHARACTER",
        set: |options, value| {
            set_value(&mut options.reading.decimal, character(value))?;
            options.reading.check().ok()
        },
    },
    OptionSpec {
        name: "date_format",
        flag: "date-format",
        help: "How dates are written in `date` columns that declare no format",
        takes: "a date in the directives of `strptime`, such as `%d/%m/%Y`, in UTF-8 without NUL",
        default: "`%Y-%m-%d`",
        placeholder: "FORMAT",
        set: |options, value| {
            set_value(&mut options.reading.date_format, text(value))?;
            options.reading.check().ok()
        },
    },
    OptionSpec {
        name: "unknown_columns",
        flag: "unknown-columns",
        help: "Whether columns that the dataset does not have refuse the file or are not stored",
        takes: "`error` or `ignore`",
        default: "`error`",
        placeholder: "ACTION",
        set: |options, value| {
            let words = [
                ("error", UnknownColumns::Error),
                ("ignore", UnknownColumns::Ignore),
            ];
            set_value(&mut options.unknown_columns, parse_word(value, words))
        },
    },
    OptionSpec {
        name: "mode",
        flag: "mode",
        help: "What happens to a row whose key is in the table of the dataset",
        takes: "`append`, `update` or `ignore`",
        default: "the mode of the dataset",
        placeholder: "MODE",
        set: |options, value| {
            let words = [Mode::Append, Mode::Update, Mode::Ignore].map(|mode| (mode.name(), mode));
            set_value(&mut options.mode, parse_word(value, words))
        },
    },
    OptionSpec {
        name: "atomic",
        flag: "atomic",
        help: "Whether all rows get into the table of the dataset at once, at the end",
        takes: "`true` or `false`",
        default: "`false`; `true` for `update`, `ignore` and a table of your own",
        placeholder: "BOOL",
        set: |options, value| set_value(&mut options.atomic, parse_bool(value)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_dataset_s_name_says_which_rule_it_breaks() {
        for (value, rule) in [
            ("sales_rows", "must not end in `_rows`"),
            ("a/b", "must not contain `/`"),
            ("", "must not be empty"),
        ] {
            let refusal = Options::default().set("dataset", value).unwrap_err();
            assert_eq!(refusal.failure.code, "malformed_option");
            let message = refusal.failure.message;
            assert!(message.starts_with("option `dataset`: "), "{message}");
            assert!(message.contains(rule), "{message}");
        }
    }
}
