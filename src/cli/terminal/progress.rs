//! Progress of a sync on standard error: bars on a terminal, else one line per tag and note.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::terminal::{escape, message};
use crate::publish::Event;
use crate::sys::terminal;

/// The template of a tag's bar.
const TAG: &str = "{prefix} {msg:7} [{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
/// The same for terminals narrower than [`TAG_NARROW_BELOW`] columns; fits in 40.
const TAG_NARROW: &str = "{prefix} {msg:7} {percent}% {binary_bytes_per_sec} {eta}";
/// Columns that [`TAG`] needs for a name and a useful bar.
const TAG_NARROW_BELOW: u16 = 100;
/// Columns of a tag's bar without the name, with the longest usual figures: wide, narrow.
const FIGURES: (u16, u16) = (66, 33);
/// Columns of [`SPINNER`] without the name.
const SPINNING: u16 = 13;
/// The template of a transfer bar.
pub const TRANSFER: &str = "{msg} [{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
/// The same for terminals narrower than [`NARROW_BELOW`] columns; fits in 40.
pub const NARROW: &str = "{msg} [{wide_bar}] {percent}% {binary_bytes_per_sec} {eta}";
/// Columns that [`TRANSFER`] needs for a useful bar.
pub const NARROW_BELOW: u16 = 70;
/// The same while the total is unknown.
pub const UNBOUNDED: &str = "{msg} {spinner} {bytes} {binary_bytes_per_sec}";
/// How often bars are redrawn between events.
const TICK: Duration = Duration::from_millis(200);
/// The template while a tag's total is unknown.
const SPINNER: &str = "{prefix} {msg} {spinner}";

/// Shows events.
pub struct Progress {
    /// `None` without a terminal.
    bars: Option<MultiProgress>,
    tags: HashMap<String, ProgressBar>,
}

impl Progress {
    /// Progress on standard error.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self::with(terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())))
    }

    fn with(bars: Option<MultiProgress>) -> Self {
        Self { bars, tags: HashMap::new() }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Begin { reference, dry_run } => self.begin(reference, *dry_run),
            Event::Packed { reference, done, total } => self.advance(reference, "packing", *done, *total),
            Event::Sent { reference, done, total } => self.advance(reference, "sending", *done, *total),
            Event::Note { reference, text } => {
                let line = format!("{}: {}", escape::terminal(reference), escape::one_line(text));
                self.above(&line);
            }
            Event::End { report } => {
                if let Some(bar) = self.tags.remove(&report.reference) {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn begin(&mut self, reference: &str, dry_run: bool) {
        let shown = escape::terminal(reference).into_owned();
        match &self.bars {
            Some(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(style(SPINNER));
                bar.set_prefix(end_of(&shown, columns().saturating_sub(SPINNING)));
                bar.set_message("comparing");
                bar.enable_steady_tick(TICK);
                self.tags.insert(reference.to_owned(), bar);
            }
            None => message::report(&format!("{shown}: {}", if dry_run { "comparing" } else { "publishing" })),
        }
    }

    fn advance(&mut self, reference: &str, what: &'static str, done: u64, total: u64) {
        let Some(bar) = self.tags.get(reference) else { return };
        if bar.length() != Some(total) {
            let (template, room) = tag_template(columns());
            bar.set_style(style(template));
            bar.set_prefix(end_of(&escape::terminal(reference), room));
            bar.set_length(total);
        }
        bar.set_message(what);
        bar.set_position(done);
    }

    /// A permanent line above the bars.
    fn above(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| message::report(line)),
            None => message::report(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.tags.drain().for_each(|(_, bar)| bar.finish_and_clear());
    }
}

fn columns() -> u16 {
    terminal::columns().unwrap_or(TAG_NARROW_BELOW)
}

/// The template that fits, and the columns left for the tag's name.
fn tag_template(columns: u16) -> (&'static str, u16) {
    match columns < TAG_NARROW_BELOW {
        true => (TAG_NARROW, columns.saturating_sub(FIGURES.1)),
        false => (TAG, columns.saturating_sub(FIGURES.0)),
    }
}

/// The last characters of a text, which distinguish tags.
fn end_of(text: &str, columns: u16) -> String {
    let (length, room) = (text.chars().count(), usize::from(columns.max(1)));
    if length <= room {
        text.to_owned()
    } else {
        text.chars().skip(length + 1 - room).fold("…".to_owned(), |end, next| end + next.encode_utf8(&mut [0; 4]))
    }
}

/// The style of a bar.
pub fn style(template: &str) -> ProgressStyle {
    // An invalid template must not fail the sync.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::*;
    use crate::publish::{Outcome, Report};

    /// A terminal that records what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            120
        }

        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> std::io::Result<()> {
            self.0.lock().clear();
            Ok(())
        }

        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn templates_are_valid() {
        assert!(
            [TAG, TAG_NARROW, SPINNER, TRANSFER, NARROW, UNBOUNDED]
                .into_iter()
                .all(|template| ProgressStyle::with_template(template).is_ok())
        );
    }

    #[test]
    fn the_bar_of_a_tag_fits_its_terminal() {
        for columns in [40, 80, 100, 120] {
            let (template, room) = tag_template(columns);
            let mut text = template.replace("{prefix}", &end_of("localhost:5000/team/deep/repository:v1.2.3", room));
            for (key, value) in [
                ("{msg:7}", "sending"),
                ("{wide_bar}", "=>"),
                ("{percent}", "100"),
                ("{bytes}", "1023.99 MiB"),
                ("{total_bytes}", "1023.99 MiB"),
                ("{binary_bytes_per_sec}", "1023.99 MiB/s"),
                ("{eta}", "59m"),
            ] {
                text = text.replace(key, value);
            }
            assert!(text.chars().count() <= usize::from(columns), "{columns}: {text}");
            assert!(text.contains("2.3 sending"), "{columns}: {text}");
        }
        assert_eq!((end_of("reg.io/app:v1", 6), end_of("app:v1", 6)), ("…pp:v1".to_owned(), "app:v1".to_owned()));
    }

    #[test]
    fn a_tag_has_a_bar_until_done_and_its_name_cannot_control_the_terminal() {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let mut progress = Progress::with(Some(MultiProgress::with_draw_target(target)));
        let reference = "reg.io/app:v\u{202e}1".to_owned();
        progress.show(&Event::Begin { reference: reference.clone(), dry_run: false });
        progress.show(&Event::Sent { reference: reference.clone(), done: 1 << 20, total: 4 << 20 });
        progress.tags[&reference].force_draw();
        let shown = screen.0.lock().clone();
        assert!(shown.contains("\\u{202e}1 sending") && shown.contains("1.00 MiB/4.00 MiB"), "{shown:?}");
        let outcome = Outcome::Unchanged;
        let report = Report { reference, outcome, sent: (0, 0), reused: (0, 0), changes: (0, 0, 0), ignored: 0, notes: Vec::new() };
        progress.show(&Event::End { report });
        assert!(progress.tags.is_empty());
    }
}
