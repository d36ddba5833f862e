//! The progress bar of a command that transfers bytes, on standard error. Hidden without a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::task::JoinHandle;

use super::progress;
use crate::sys::terminal;

/// How often the bar is redrawn.
const TICK: Duration = Duration::from_millis(200);

/// Progress of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The action, as a present participle.
    pub doing: &'static str,
    /// Bytes so far.
    pub done: u64,
    /// Total bytes, once known.
    pub total: Option<u64>,
}

/// A bar, shown until it is dropped.
pub struct Bar {
    bar: ProgressBar,
    redrawing: JoinHandle<()>,
}

impl Bar {
    /// Shows figures. Call within the runtime.
    pub fn new(quiet: bool, figures: impl Fn() -> Figures + Send + 'static) -> Self {
        let is_shown = !quiet && std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        let drawn = bar.clone();
        let redrawing = tokio::spawn(async move {
            let mut styled = "";
            loop {
                let Figures { doing, done, total } = figures();
                let template = template(total.is_some(), terminal::columns());
                if styled != template {
                    styled = template;
                    drawn.set_style(progress::style(template));
                }
                drawn.set_message(doing);
                if let Some(total) = total {
                    drawn.set_length(total);
                }
                drawn.set_position(done);
                tokio::time::sleep(TICK).await;
            }
        });
        Self { bar, redrawing }
    }

    /// Shows how much of a known number of bytes is done. Call within the runtime.
    pub fn of_bytes(quiet: bool, doing: &'static str, done: &Arc<AtomicU64>, total: u64) -> Self {
        let done = Arc::clone(done);
        Self::new(quiet, move || Figures { doing, done: done.load(Ordering::Relaxed), total: Some(total) })
    }
}

/// The template that fits the terminal.
fn template(is_bounded: bool, columns: Option<u16>) -> &'static str {
    match columns {
        _ if !is_bounded => progress::UNBOUNDED,
        Some(columns) if columns < progress::NARROW_BELOW => progress::NARROW,
        _ => progress::TRANSFER,
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.redrawing.abort();
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_a_bar_that_fits_it() {
        // Assume the longest usual figures, and a minimum width for the bar itself.
        let longest = |template: &str| {
            let mut text =
                template.replace("{msg}", "copying").replace("{wide_bar}", "").replace("{percent}", "100").replace("{eta}", "59m");
            for (key, value) in [("{bytes}", "1023.99 MiB"), ("{total_bytes}", "1023.99 MiB"), ("{binary_bytes_per_sec}", "1023.99 MiB/s")]
            {
                text = text.replace(key, value);
            }
            text.len()
        };
        assert!(longest(template(true, Some(40))) + 4 <= 40);
        assert!(longest(template(true, Some(70))) + 4 <= 70);
        assert_eq!(template(true, None), progress::TRANSFER);
        assert_eq!(template(false, Some(40)), progress::UNBOUNDED);
    }
}
