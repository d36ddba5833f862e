//! The progress bar of a command that moves bytes, on standard error. Hidden without a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::task::JoinHandle;

use super::progress;

/// How often the bar is redrawn.
const TICK: Duration = Duration::from_millis(200);

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The present participle of what is done.
    pub doing: &'static str,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, once that is known.
    pub total: Option<u64>,
}

/// A bar for as long as it lives.
pub struct Bar {
    bar: ProgressBar,
    redrawing: JoinHandle<()>,
}

impl Bar {
    /// Shows figures. To be called inside of the runtime.
    pub fn new(quiet: bool, figures: impl Fn() -> Figures + Send + 'static) -> Self {
        let is_shown = !quiet && std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        let drawn = bar.clone();
        let redrawing = tokio::spawn(async move {
            let mut styled = None;
            loop {
                let Figures { doing, done, total } = figures();
                if styled != Some(total.is_some()) {
                    styled = Some(total.is_some());
                    drawn.set_style(progress::style(if total.is_some() { progress::TRANSFER } else { progress::UNBOUNDED }));
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
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.redrawing.abort();
        self.bar.finish_and_clear();
    }
}
