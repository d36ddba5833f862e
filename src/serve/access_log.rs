//! The access log: one line per request, written once its response has been sent, as text (the combined log format, plus duration and cache
//! status) or as JSON.
//!
//! A line contains no credentials, no query, and only printable ASCII. A separate thread writes, so that a slow log reader delays no response;
//! lines that find no room are dropped and counted.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use axum::http::{Method, StatusCode, Version};
use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use serde_json::json;

use super::metrics::{Kind, Source};

/// Lines queued for writing.
const WAITING: usize = 4096;
/// Time limit for writing queued lines once the server has stopped.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Characters written of each value.
const LONGEST: usize = 1024;

/// The format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// The combined log format.
    Text,
    /// One JSON object per line.
    Json,
}

/// The access log. Dropping it writes the queued lines.
pub struct AccessLog {
    format: AccessFormat,
    /// `None` once it ends.
    lines: Option<SyncSender<String>>,
    /// Closed by the writer when it ends.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// A log written to `to`.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn new(format: AccessFormat, mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel::<String>(WAITING);
        let (end, ended) = sync_channel::<()>(0);
        let write = move || {
            let _end = end;
            for line in waiting {
                // A broken log must not stop requests.
                let _ = to.write_all(line.as_bytes());
            }
        };
        std::thread::Builder::new().name("access log".to_owned()).spawn(write)?;
        Ok(Self { format, lines: Some(lines), ended: Mutex::new(ended) })
    }

    /// Queues a line for the writer; false if there is no room.
    pub(super) fn write(&self, entry: &Entry) -> bool {
        let mut line = match self.format {
            AccessFormat::Text => entry.text(),
            AccessFormat::Json => entry.json(),
        };
        line.push('\n');
        self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok())
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        if self.ended.get_mut().recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last lines of the access log are lost: its reader is too slow");
        }
    }
}

/// One request and its response.
pub(super) struct Entry {
    pub(super) began: SystemTime,
    pub(super) client: Option<SocketAddr>,
    pub(super) user: Option<String>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) version: Version,
    pub(super) agent: Option<String>,
    pub(super) kind: Kind,
    pub(super) status: StatusCode,
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// Whether the response was sent completely.
    pub(super) is_whole: bool,
    pub(super) source: Option<Source>,
}

impl Entry {
    fn text(&self) -> String {
        let client = self.client.map_or("-".to_owned(), |client| client.ip().to_string());
        let user = self.user.as_deref().map_or("-".to_owned(), |user| printable(user).replace(' ', "\\u{20}"));
        let began = DateTime::<Utc>::from(self.began).format("%d/%b/%Y:%H:%M:%S +0000");
        let (method, path, version) = (printable(self.method.as_str()), printable(&self.path), self.version);
        let agent = self.agent.as_deref().map_or("-".to_owned(), printable);
        let (status, bytes, seconds) = (self.status.as_u16(), self.bytes, self.took.as_secs_f64());
        let source = self.source.map_or("-", Source::text);
        let end = if self.is_whole { "" } else { " cut" };
        format!("{client} - {user} [{began}] \"{method} {path} {version:?}\" {status} {bytes} \"-\" \"{agent}\" {seconds:.3} {source}{end}")
    }

    fn json(&self) -> String {
        let shortened = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let line = json!({
            "time": DateTime::<Utc>::from(self.began).to_rfc3339_opts(SecondsFormat::Millis, true),
            "client": self.client.map(|client| client.to_string()),
            "user": self.user.as_deref().map(shortened),
            "method": shortened(self.method.as_str()),
            "path": shortened(&self.path),
            "protocol": format!("{:?}", self.version),
            "agent": self.agent.as_deref().map(shortened),
            "kind": self.kind.text(),
            "status": self.status.as_u16(),
            "bytes": self.bytes,
            "seconds": (self.took.as_secs_f64() * 1e6).round() / 1e6,
            "complete": self.is_whole,
            "cache": self.source.map(Source::text),
        });
        ascii(&line.to_string())
    }
}

/// A client's text as one line of printable ASCII.
fn printable(text: &str) -> String {
    text.chars().take(LONGEST).flat_map(char::escape_default).collect()
}

/// Restricts JSON to ASCII: other characters occur only in strings, where they can be escaped.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn entry() -> Entry {
        Entry {
            began: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_937_784_250),
            client: Some("[::1]:4711".parse().unwrap()),
            user: Some("al\u{1b}[2J ice\u{9b}\u{1f600}".to_owned()),
            method: Method::GET,
            path: "/v2/a\"b/tags/list".to_owned(),
            version: Version::HTTP_11,
            agent: Some("x\"\n200".to_owned()),
            kind: Kind::Tags,
            status: StatusCode::OK,
            bytes: 42,
            took: Duration::from_micros(1_234_567),
            is_whole: false,
            source: Some(Source::Cache),
        }
    }

    #[test]
    fn text_lines_are_combined_format_and_client_text_stays_in_its_field() {
        let line = entry().text();
        let expected = "::1 - al\\u{1b}[2J\\u{20}ice\\u{9b}\\u{1f600} [29/Nov/2026:07:36:24 +0000] \"GET /v2/a\\\"b/tags/list HTTP/1.1\" \
             200 42 \"-\" \"x\\\"\\n200\" 1.235 hit cut";
        assert_eq!(line, expected);
        let nothing = Entry { client: None, user: None, agent: None, source: None, is_whole: true, ..entry() };
        assert!(nothing.text().starts_with("- - - [") && nothing.text().ends_with("\"-\" \"-\" 1.235 -"));
    }

    #[test]
    fn json_lines_are_ascii_and_keep_their_values() {
        let line = entry().json();
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["user"], json!(entry().user));
        assert_eq!((&value["time"], &value["cache"]), (&json!("2026-11-29T07:36:24.250Z"), &json!("hit")));
        assert_eq!((&value["status"], &value["complete"], &value["seconds"]), (&json!(200), &json!(false), &json!(1.234567)));
    }

    #[test]
    fn long_values_are_cut() {
        let long = Entry { path: "/".repeat(100_000), ..entry() };
        assert!(long.text().len() < 2000 && long.json().len() < 2000);
    }

    #[test]
    fn a_stuck_log_reader_loses_lines_but_delays_no_request() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = sync_channel(0);
        let log = AccessLog::new(AccessFormat::Text, Stuck(stuck)).unwrap();
        let kept = (0..2 * WAITING).filter(|_| log.write(&entry())).count();
        assert!((WAITING..WAITING + 2).contains(&kept));
        drop(release);
    }
}
