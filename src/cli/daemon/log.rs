//! The log: a bounded file for daemons, standard error in the foreground, level prefixes for journald.
//!
//! Control characters in values are escaped. Secret types do not print their values.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::settings::environment;
use crate::cli::settings::flags::LogFormat;
use crate::cli::terminal::escape;

/// A log file is rotated at this size; one old file is kept.
const FILE_LIMIT: u64 = 16 << 20;

/// Destination of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    Terminal,
    /// Append to a file.
    File(PathBuf),
}

/// The log file of a mount, named after its mount point.
pub fn file_of(state_directory: &Path, mount_point: &Path) -> PathBuf {
    let name: String = mount_point
        .to_string_lossy()
        .trim_matches('/')
        .chars()
        .map(|character| if character.is_alphanumeric() || "-_.".contains(character) { character } else { '-' })
        .take(120)
        .collect();
    let name = if name.is_empty() { "root" } else { &name };
    state_directory.join("log").join(format!("{name}.log"))
}

/// Starts logging for the rest of the process. `OCIFS_LOG` holds a filter such as `ocifs::registry=trace`.
///
/// # Errors
/// The file cannot be opened. A second call has no effect.
pub fn start(target: &LogTarget, format: Option<LogFormat>, verbose: u8) -> io::Result<()> {
    let level = match (verbose, target) {
        (0, LogTarget::Terminal) => Level::WARN,
        (0, LogTarget::File(_)) => Level::INFO,
        (1, _) => Level::DEBUG,
        _ => Level::TRACE,
    };
    // Other crates' logs are for their own authors; fuser warns about every unsupported operation.
    let filter = environment::variable("OCIFS_LOG")
        .and_then(|text| EnvFilter::try_new(text.to_str()?).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("warn,fuser=error,ocifs={}", level.as_str().to_lowercase())));
    let journal = environment::variable("JOURNAL_STREAM").is_some() && *target == LogTarget::Terminal;
    let format = format.unwrap_or(if journal { LogFormat::Journal } else { LogFormat::Text });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let started = match (target, format) {
        (LogTarget::Terminal, LogFormat::Text) => builder.with_writer(io::stderr).without_time().with_target(false).finish().try_init(),
        (LogTarget::Terminal, LogFormat::Json) => builder.with_writer(io::stderr).json().finish().try_init(),
        (LogTarget::Terminal, LogFormat::Journal) => builder.with_writer(io::stderr).event_format(Journal::default()).finish().try_init(),
        (LogTarget::File(path), format) => {
            // The subscriber requires a standard-library lock as its writer.
            let file = std::sync::Mutex::new(Bounded::open(path)?);
            match format {
                LogFormat::Text => builder.with_writer(file).finish().try_init(),
                LogFormat::Json => builder.with_writer(file).json().finish().try_init(),
                LogFormat::Journal => builder.with_writer(file).event_format(Journal::default()).finish().try_init(),
            }
        }
    };
    // Only tests install another subscriber themselves.
    started.or(Ok(()))
}

/// The last lines of a log, for a daemon that died without reporting an error.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<String> = text.lines().rev().take(count).map(|line| escape::terminal(line).into_owned()).collect();
    lines.into_iter().rev().collect()
}

/// A log file that is renamed to `NAME.old` when full.
struct Bounded {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Bounded {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        fs::rename(&self.path, old)?;
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

impl Write for Bounded {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written >= FILE_LIMIT && self.file.metadata()?.is_file() {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// `<6>message`: the level prefix of journald (sd-daemon(3)).
struct Journal {
    inner: Mutex<Format<tracing_subscriber::fmt::format::Full, ()>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { inner: Mutex::new(tracing_subscriber::fmt::format().without_time().with_level(false).with_target(false)) }
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.inner.lock().format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_named_after_its_mount_point() {
        let name = |path: &str| file_of(Path::new("/s"), Path::new(path)).to_str().unwrap().to_owned();
        assert_eq!(name("/home/a b/oci"), "/s/log/home-a-b-oci.log");
        assert_eq!(name("/"), "/s/log/root.log");
    }

    #[test]
    fn a_full_log_is_rotated_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log/x.log");
        let mut log = Bounded::open(&path).unwrap();
        log.write_all(b"first\n").unwrap();
        log.written = FILE_LIMIT;
        log.write_all(b"second\n").unwrap();
        assert_eq!(last_lines(&path, 5), ["second"]);
        assert_eq!(last_lines(&path.with_extension("log.old"), 5), ["first"]);
    }

    #[test]
    fn journal_lines_have_level_prefixes_and_no_escape_sequences() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let file = std::sync::Mutex::new(Bounded::open(&path).unwrap());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(file).event_format(Journal::default()).finish();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(name = "a\x1b[2J", "odd"));
        let lines = last_lines(&path, 1);
        assert!(lines[0].starts_with("<4>") && !lines[0].contains('\x1b'), "{lines:?}");
    }
}
