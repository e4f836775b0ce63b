//! The command line.

mod dead_letters;
mod keys;

use std::path::PathBuf;
use std::str::FromStr;

use carga_common::dataset::DatasetName;
use carga_common::upload::UploadId;
use carga_intake::csv::export::Format;
use carga_intake::options::{OF_DATASETS, OPTIONS, OptionSpec, Options, REPEATABLE};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use self::dead_letters::{DeadLetterCommand, RetryArguments};
pub(crate) use self::keys::{KeyCommand, NewKeyArguments};
use crate::output::printable;

/// Imports CSV files and accounts for every row: as rows in a database and as JSON in an archive.
///
/// Without settings, all data is in ./carga-data: the rows in a SQLite database, the archive as
/// plain files. An upload is `completed` only when every row read is stored. A failed upload leaves
/// no rows, so you can correct the file and send it again.
#[derive(Debug, Parser)]
#[command(version, after_long_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The command; the default is `serve`
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const AFTER_HELP: &str = "\
Examples:
  carga import flights.csv                     import a file and print where its rows are
  gunzip -c flights.csv.gz | carga import -    import from a pipe
  carga rows last --limit 5                    print five rows of the latest successful upload
  carga dataset put sales sales.json           declare typed columns for `import --dataset sales`
  carga serve                                  receive files over HTTP on 127.0.0.1:8080
  curl -F file=@flights.csv http://127.0.0.1:8080/uploads

Settings are environment variables; `carga config` prints their values. The main ones:
  CARGA_DATA_DIR     directory of all data whose location is not set below (carga-data)
  CARGA_LISTEN       address of `serve` (127.0.0.1:8080)
  CARGA_AUTH         whether requests to `serve` need an API key: on or off (off on loopback)
  DATABASE_URL       location of the rows: postgres://… or sqlite:///file
  ARCHIVE_URL        location of the archive: s3://bucket/prefix or file:///directory
  AMQP_URL           location of the queue: amqp://… or sqlite:///file
  REDIS_URL          location of the live counters: redis://… or sqlite:///file

Exit codes:
  0  success
  1  failure; the reason is on standard error
  2  invalid command line
  3  import: some rows were rejected or not stored; validate: some rows would be rejected";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Receive files over HTTP and store their rows, until Ctrl-C
    ///
    /// After Ctrl-C or SIGTERM, new uploads are refused and uploads in flight have CARGA_GRACE_SECS
    /// to finish. Uploads that were answered with 202 are durable; the next start continues them.
    Serve,
    /// Import files and wait until every row is stored
    ///
    /// Each file becomes an upload. A failed upload leaves no rows. The other files are still
    /// imported, and the exit code is 1.
    Import {
        /// CSV files, plain or compressed with gzip or zstd; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        options: FileOptions<true>,
    },
    /// Show how a file would be read: its dialect with reasons, first rows and first faults
    ///
    /// Reads at most the first MiB and stores nothing. An import of the same file
    /// detects the same dialect.
    Preview {
        /// A CSV file; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print the answer of `POST /uploads/preview` instead of a text
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: FileOptions<false>,
    },
    /// Check a whole file, and say what an import would store, change and reject
    ///
    /// Makes every check of an import and stores nothing. With `--dataset`, the rows are tried in
    /// the table of the dataset, and the changes are rolled back.
    Validate {
        /// A CSV file, plain or compressed with gzip or zstd; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
        #[command(flatten)]
        options: FileOptions<true>,
    },
    /// List the latest uploads, or show one in full
    Status {
        /// The upload's id, or `last` for the latest one; it is shown as the JSON of
        /// `GET /uploads/{id}`
        id: Option<UploadRef>,
    },
    /// Print the rows of a `completed` or `partial` upload
    Rows {
        /// The upload's id, or `last` for the latest `completed` or `partial` one
        id: UploadRef,
        /// Output format; CSV prints a missing value as an empty cell
        #[arg(long, value_parser = format_parser(), default_value = "csv")]
        format: Format,
        /// Print at most this many rows
        #[arg(long, value_name = "ROWS")]
        limit: Option<usize>,
    },
    /// Print the rejected rows of an upload as a report that can be corrected and imported
    ///
    /// The file's own columns come first. An import ignores the columns after them, whose names
    /// begin with `_carga_`.
    Rejected {
        /// The upload's id, or `last` for the latest one
        id: UploadRef,
        /// Output format
        #[arg(long, value_parser = format_parser(), default_value = "csv")]
        format: Format,
        /// Put an apostrophe before cells that a spreadsheet would run as formulas; this changes
        /// those cells
        #[arg(long)]
        spreadsheet_safe: bool,
    },
    /// Cancel an upload that has not ended, and remove its rows
    Cancel {
        /// The upload's id, or `last` for the latest one
        id: UploadRef,
    },
    /// Undo a `completed` or `partial` upload: remove its rows
    ///
    /// Rows that the upload has replaced in the table of a dataset get their previous values again.
    /// Rows that were changed later stay. Previous values are kept for CARGA_UNDO_DAYS.
    Undo {
        /// The upload's id, or `last` for the latest one
        id: UploadRef,
    },
    /// Declare datasets: tables with typed columns, which `import --dataset` fills
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// List, show and retry dead letters: batches that could not be stored
    #[command(subcommand)]
    DeadLetters(DeadLetterCommand),
    /// Make, list and revoke API keys, which requests need with CARGA_AUTH=on
    #[command(subcommand)]
    Keys(KeyCommand),
    /// Ask a running `carga serve` whether it is alive; for container health checks
    Healthcheck,
    /// Bring the database schema up to date; `serve` and `import` do this unless CARGA_MIGRATE=off
    Migrate,
    /// Print the settings, with defaults commented out and passwords masked
    Config,
    /// Print the OpenAPI document of the HTTP API
    Openapi,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatasetCommand {
    /// Create a dataset, or change its definition
    ///
    /// A change can add columns at the end, if they are not required, and can change how cells are
    /// read. Other changes are refused.
    Put {
        /// The dataset's name
        name: DatasetName,
        /// The definition in JSON, as `PUT /datasets/{name}` takes it; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Propose a definition for a file
    ///
    /// Reads the whole file and stores nothing. The definition is printed as `put` reads it, and
    /// the reasons go to standard error. Check both before you declare the dataset.
    Suggest {
        /// A CSV file; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print the answer of `POST /datasets/suggest` instead
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: FileOptions<false>,
    },
    /// Print a dataset as the JSON of `GET /datasets/{name}`
    Show {
        /// The dataset's name
        name: DatasetName,
    },
    /// List all datasets
    List,
    /// Delete a dataset and its table, if no upload has rows in it; a table of your own stays
    Delete {
        /// The dataset's name
        name: DatasetName,
    },
}

/// How the outcome of a validation is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Sentences and lists
    #[default]
    Text,
    /// The answer of `POST /uploads/validate`
    Json,
}

/// The options that were given, as pairs of name and value. [`carga_intake::options`] defines them
/// for requests as well. A preview does not convert cells, and a suggestion has no dataset, so both
/// are without [`OF_DATASETS`].
#[derive(Debug, Clone)]
pub(crate) struct FileOptions<const WITH_DATASETS: bool>(Vec<(String, String)>);

impl<const WITH_DATASETS: bool> FileOptions<WITH_DATASETS> {
    /// Names and values, as in the query of a request.
    pub(crate) fn by_name(self) -> Vec<(String, String)> {
        self.0
    }

    fn on_command_line() -> impl Iterator<Item = &'static OptionSpec> {
        let is_used = |name: &str| WITH_DATASETS || !OF_DATASETS.contains(&name);
        OPTIONS
            .iter()
            .filter(move |spec| !spec.flag.is_empty() && is_used(spec.name))
    }
}

impl<const WITH_DATASETS: bool> Args for FileOptions<WITH_DATASETS> {
    fn augment_args(command: clap::Command) -> clap::Command {
        Self::on_command_line().fold(command, |command, spec| {
            let help = format!("{}: {} [{}]", spec.help, spec.takes, spec.default);
            let action = match REPEATABLE.contains(&spec.name) {
                true => ArgAction::Append,
                false => ArgAction::Set,
            };
            let option = Arg::new(spec.name)
                .long(spec.flag)
                .action(action)
                // A number such as -999 often means NULL.
                .allow_negative_numbers(true)
                .value_name(spec.placeholder)
                .help(help);
            command.arg(option)
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<const WITH_DATASETS: bool> FromArgMatches for FileOptions<WITH_DATASETS> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Self::on_command_line().flat_map(|spec| {
            let values = matches.get_many::<String>(spec.name).unwrap_or_default();
            values.map(move |value| (spec.name.to_owned(), value.clone()))
        });
        let given: Vec<_> = given.collect();
        // Checked here, so that a wrong value is a wrong command line and touches no data.
        match Options::from_query(&given) {
            Ok(_) => Ok(Self(given)),
            Err(refusal) => {
                let message = format!("{}\n", printable(&refusal.failure.message));
                Err(clap::Error::raw(ErrorKind::ValueValidation, message))
            }
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The upload that a command is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UploadRef {
    Last,
    Id(UploadId),
}

impl FromStr for UploadRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "last" {
            return Ok(Self::Last);
        }
        let id = text.parse().map(Self::Id);
        id.map_err(|_| {
            "expected the UUID of an upload, or `last`; `carga status` lists the uploads".to_owned()
        })
    }
}

fn format_parser() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new([
        PossibleValue::new("csv").help("A header, then a line per row"),
        PossibleValue::new("ndjson").help("A JSON object per line; a missing value is `null`"),
    ])
    .map(|name| match name.as_str() {
        "ndjson" => Format::Ndjson,
        _ => Format::Csv,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_and_a_validation_have_the_options_of_datasets_and_a_preview_does_not() {
        let accepts = |command: &str, flags: &[&str]| {
            let arguments = [&["carga", command][..], flags, &["a.csv"]].concat();
            Arguments::try_parse_from(arguments).is_ok()
        };
        let dataset = ["--dataset", "sales"];
        let unknown = ["--dataset", "sales", "--unknown-columns", "ignore"];
        assert!(accepts("import", &dataset) && accepts("import", &unknown));
        let merged = ["--dataset", "sales", "--mode", "ignore", "--atomic", "true"];
        assert!(accepts("import", &merged) && !accepts("preview", &merged));
        assert!(!accepts("import", &merged[2..]));
        assert!(accepts("validate", &merged) && accepts("validate", &["--format", "json"]));
        assert!(!accepts("validate", &["--format", "csv"]));
        assert!(!accepts("preview", &dataset) && !accepts("preview", &unknown));
        assert!(accepts("preview", &["--header", "true"]));
        let suggest = ["carga", "dataset", "suggest", "--header", "true", "a.csv"];
        assert!(Arguments::try_parse_from(suggest).is_ok());
    }

    /// The options of an import with these flags; `None` if the command line is not valid.
    fn options_of_import(flags: &[&str]) -> Option<Vec<(String, String)>> {
        let import = ["carga", "import", "--dataset", "sales"];
        let arguments = [&import[..], flags, &["a.csv"]].concat();
        match Arguments::try_parse_from(arguments).ok()?.command? {
            Command::Import { options, .. } => Some(options.by_name()),
            _ => None,
        }
    }

    #[test]
    fn null_may_be_repeated_on_the_command_line_and_no_other_flag_may() {
        let flags = ["--null", "NA", "--null", "", "--null=--", "--null", "-999"];
        let mut options = options_of_import(&flags).unwrap();
        options.retain(|(name, _)| name == "null");
        let texts: Vec<&str> = options.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["NA", "", "--", "-999"]);
        for (flag, value) in [
            ("--decimal", ","),
            ("--date-format", "%F"),
            ("--mode", "append"),
            ("--delimiter", ";"),
        ] {
            assert!(options_of_import(&[flag, value]).is_some(), "{flag}");
            let twice = [flag, value, flag, value];
            assert!(options_of_import(&twice).is_none(), "{flag} twice");
        }
    }
}
