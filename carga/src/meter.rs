//! The progress of an import: a bar on a terminal, otherwise a line every few seconds. It goes
//! to standard error, so that standard output has only the result.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use carga_common::progress::Counters;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use crate::output::count_rows;

/// Time between lines when standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of one file.
#[derive(Debug)]
pub(crate) struct Meter {
    name: String,
    bytes_total: Option<u64>,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Meter {
    pub(crate) fn start(name: &str, bytes_total: Option<u64>) -> Self {
        let display = if stderr().is_terminal() {
            let bar = match bytes_total {
                Some(bytes) => ProgressBar::new(bytes)
                    .with_style(style("{prefix} [{bar:30}] {percent:>3}%  {msg}  {elapsed}")),
                None => ProgressBar::new_spinner()
                    .with_style(style("{prefix} {spinner} {msg}  {elapsed}")),
            };
            bar.set_prefix(name.to_owned());
            Display::Bar(bar)
        } else {
            Display::Lines {
                last: Instant::now(),
            }
        };
        Self {
            name: name.to_owned(),
            bytes_total,
            display,
        }
    }

    pub(crate) fn show(&mut self, figures: Counters) {
        let received = figures.bytes_received;
        let message = format!(
            "{} read, {} stored",
            count_rows(figures.rows_read),
            HumanCount(figures.rows_stored)
        );
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_position(received);
                bar.set_message(message);
            }
            Display::Lines { last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let total = self
                    .bytes_total
                    .map(|total| format!(" of {}", HumanBytes(total)));
                let total = total.unwrap_or_default();
                eprintln!("{}: {}{total}, {message}", self.name, HumanBytes(received));
            }
            Display::Lines { .. } => {}
        }
    }

    /// Clears the bar, so that later output starts on an empty line.
    pub(crate) fn finish(self) {
        if let Display::Bar(bar) = self.display {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
