//! The arguments of `carga dead-letters`.

use clap::{ArgGroup, Args, Subcommand};

use super::UploadRef;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterCommand {
    /// List the dead letters of all tenants, the oldest first
    List,
    /// Show a dead letter, with its message
    Show {
        /// The number in the list
        number: u64,
    },
    /// Retry dead letters; remove their cause first
    ///
    /// The upload is `processing` again until the batches are stored. `carga serve`, or a worker,
    /// publishes their messages within CARGA_SWEEP_MS.
    Retry(RetryArguments),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["numbers", "upload"]))]
pub(crate) struct RetryArguments {
    /// The numbers in the list
    #[arg(value_name = "NUMBER")]
    pub(crate) numbers: Vec<u64>,
    /// All dead letters of this upload; `last` is the latest `partial` one
    #[arg(long, value_name = "ID")]
    pub(crate) upload: Option<UploadRef>,
}
