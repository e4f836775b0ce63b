//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use carga_common::upload::UploadId;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Takes CSV files and accounts for every row of them: as rows in a database, and as JSON in an archive.
///
/// Without any settings everything is kept in ./carga-data: rows in a SQLite database, the archive as plain files. An upload is
/// `completed` only when the rows stored are the rows read; one that fails leaves no rows behind, so the file can be mended
/// and sent again.
#[derive(Debug, Parser)]
#[command(version, after_long_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// What to do; without it, `serve`
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const AFTER_HELP: &str = "\
Examples:
  carga import flights.csv                     import a file, and say where its rows are
  gunzip -c flights.csv.gz | carga import -    the same from a pipe
  carga rows last --limit 5                    look at the rows of the last upload that ended well
  carga serve                                  take files over HTTP, on 127.0.0.1:8080
  curl -F file=@flights.csv http://127.0.0.1:8080/uploads

Settings are environment variables; `carga config` lists them with the values in effect. Some that matter:
  CARGA_DATA_DIR     where everything is kept that has no place of its own (carga-data)
  CARGA_LISTEN       where `serve` listens (127.0.0.1:8080)
  DATABASE_URL       the rows: postgres://… or sqlite:///file
  ARCHIVE_URL        the archive: s3://bucket/prefix or file:///directory
  AMQP_URL, REDIS_URL  the queue and the live counters: amqp://…, redis://…, or sqlite:///file

Exit codes: 0 it is done, 1 it failed and the reason is on standard error, 2 the command line is wrong, 3 an import stored all
rows but some that it rejected.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take files over HTTP and store them, until Ctrl-C
    ///
    /// Ctrl-C or SIGTERM refuses new uploads, lets those in flight finish within CARGA_GRACE_SECS, and ends. Whatever was
    /// answered with 202 is durable and goes on with the next start.
    Serve,
    /// Import files, and wait until every row is stored
    ///
    /// Each file becomes an upload. One that fails leaves no rows; the others are imported all the same, and the exit code
    /// tells that one has failed.
    Import {
        /// CSV files, plain or with gzip or zstd; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        options: FileOptions,
    },
    /// Show how a file would be read: the dialect and why, its first rows, its first problems
    ///
    /// Reads at most the first MiB and stores nothing. The same code decides as in the import.
    Preview {
        /// A CSV file; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        options: FileOptions,
    },
    /// Show the latest uploads, or one in full
    Status {
        /// An upload's id, or `last`: the document that `GET /uploads/{id}` answers with
        id: Option<UploadRef>,
    },
    /// Print the rows of an upload that has ended well
    Rows {
        /// The upload's id, or `last`
        id: UploadRef,
        /// How to print them; in CSV an empty cell and no value look alike
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
        /// Only the first so many
        #[arg(long, value_name = "ROWS")]
        limit: Option<usize>,
    },
    /// Print the rows of an upload that were rejected, ready to be mended and imported
    ///
    /// The file's own columns first, then `_carga_row`, `_carga_line`, `_carga_column`, `_carga_message` and others, which an
    /// import does not take: the corrected report is a file.
    Rejected {
        /// The upload's id, or `last`
        id: UploadRef,
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
        /// Put an apostrophe before cells that a spreadsheet would run as a formula; this changes them
        #[arg(long)]
        spreadsheet_safe: bool,
    },
    /// Stop an upload that has not ended; none of its rows are kept
    Cancel {
        /// The upload's id, or `last`
        id: UploadRef,
    },
    /// Remove the rows of an upload that has ended well
    Undo {
        /// The upload's id, or `last`
        id: UploadRef,
    },
    /// Bring the database's schema up to date, as every start does unless CARGA_MIGRATE=off
    Migrate,
    /// Print the settings in effect, passwords masked; a line that is commented out is a default
    Config,
}

/// How to read files. What is not said is detected.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileOptions {
    /// What separates fields: `,`, `;`, `tab`, `|` or any one character
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<String>,
    /// What quotes them: one punctuation character, or `none` (")
    #[arg(long, value_name = "CHARACTER")]
    quote: Option<String>,
    /// How bytes become text, as `utf-8` or `windows-1252`
    #[arg(long, value_name = "LABEL")]
    encoding: Option<String>,
    /// Whether the first record names the columns (true)
    #[arg(long, value_name = "BOOL")]
    header: Option<String>,
    /// What a bad row does: `reject` sets it apart, `abort` fails the upload (reject)
    #[arg(long, value_name = "WHAT")]
    on_error: Option<String>,
    /// So many rows may be rejected, or so many of a hundred, as `0.5%`; more fail the upload
    #[arg(long, value_name = "NUMBER")]
    max_rejects: Option<String>,
    /// What a file does that was imported before: `allow` or `reject` (allow)
    #[arg(long, value_name = "WHAT")]
    on_duplicate: Option<String>,
    /// The SHA-256 that the file must have
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

impl FileOptions {
    /// As in the query of a request, which takes the same and says what is wrong with them.
    pub(crate) fn by_name(self) -> Vec<(String, String)> {
        let options = [
            ("delimiter", self.delimiter),
            ("quote", self.quote),
            ("encoding", self.encoding),
            ("header", self.header),
            ("on_error", self.on_error),
            ("max_rejects", self.max_rejects),
            ("on_duplicate", self.on_duplicate),
            ("sha256", self.sha256),
        ];
        let given = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
        options.into_iter().filter_map(given).collect()
    }
}

/// Which upload is meant.
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
        id.map_err(|_| "neither a UUID nor `last`".to_owned())
    }
}

/// The form of printed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A header, then a line per row
    Csv,
    /// A JSON object per line; no value is `null`
    Ndjson,
}
