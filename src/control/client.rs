//! The client. It blocks, with deadlines: commands need no runtime, and a hung daemon costs only seconds.

use std::cmp::Reverse;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::endpoint::{Found, records};
use super::{LINE_LIMIT, Line, Record, Request, Status};
use crate::error::{Error, ErrorKind};
use crate::publish::Event;
use crate::sys::mountinfo::Mount;
use crate::sys::process::{self, Peer, Process};

/// How long an answer may take before the daemon counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a busy daemon may be silent before it counts as hung; keep-alives come more often.
pub const SILENCE: Duration = Duration::from_secs(30);

/// A client of one mount's daemon.
#[derive(Clone, Debug)]
pub struct Client {
    /// The owner of the mount. Sockets of other users are not trusted, not even by root: the listening process may be killed, and a symlink in
    /// place of a socket can lead anywhere.
    owner: u32,
    /// Records of this mount, newest first: if two daemons claim a device number, the later one wins.
    found: Vec<Found>,
}

impl Client {
    /// A client for a mount whose socket is in one of these directories.
    pub fn new(directories: &[PathBuf], mount: &Mount) -> Self {
        let owner = mount.user().unwrap_or_else(process::effective_uid);
        let mut found: Vec<Found> = directories.iter().flat_map(|directory| records(directory)).collect();
        found.retain(|found| found.record.is_of(mount) && is_owner_s(found.owner, owner, &found.endpoint.record()));
        found.sort_by_key(|found| (!found.record.is_alive(), Reverse(found.written)));
        Self { owner, found }
    }

    /// Clients for running daemons of this user with records in these directories.
    pub fn running(directories: &[PathBuf]) -> Vec<Self> {
        let owner = process::effective_uid();
        let found = directories.iter().flat_map(|directory| records(directory));
        let own = found.filter(|found| found.owner == owner && found.record.is_alive());
        own.map(|found| Self { owner, found: vec![found] }).collect()
    }

    /// The status of the mount.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn status(&self, patience: Duration) -> Result<Status, Error> {
        let value = self.ask(&Request::Status, patience)?;
        serde_json::from_value(value).map_err(|error| Error::new(ErrorKind::Other, format!("invalid answer from the daemon: {error}")))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// `Unreachable` without a daemon, `TimedOut` if it hangs, else those of the daemon.
    pub fn ask(&self, request: &Request, patience: Duration) -> Result<serde_json::Value, Error> {
        self.converse(request, patience, &mut |_| {}).map(|(answer, _)| answer)
    }

    /// Sends a request for a list, which may take long; passes events to `hear`.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn collect<T: DeserializeOwned>(&self, request: &Request, hear: &mut dyn FnMut(Event)) -> Result<Vec<T>, Error> {
        let (_, members) = self.converse(request, SILENCE, hear)?;
        let understood = members.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        understood.map_err(|error| Error::new(ErrorKind::Other, format!("invalid answer from the daemon: {error}")))
    }

    fn converse(
        &self,
        request: &Request,
        patience: Duration,
        hear: &mut dyn FnMut(Event),
    ) -> Result<(serde_json::Value, Vec<serde_json::Value>), Error> {
        let stream = self.connect(patience.min(PATIENCE))?;
        exchange(&stream, request, patience, hear).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Error::new(ErrorKind::TimedOut, format!("the daemon did not answer within {} s", patience.as_secs()))
            }
            _ => Error::new(ErrorKind::Unreachable, format!("the daemon closed the connection: {error}")),
        })?
    }

    /// The listening process, even if it does not answer; else the one in the record, if it still runs.
    pub fn daemon(&self) -> Option<Process> {
        let listens = || process::peer(self.connect(PATIENCE).ok()?).ok();
        if let Some(Peer { pid, .. }) = listens()
            && let Some(process) = Process::find(pid, self.owner)
        {
            return Some(process);
        }
        let record = self.record()?;
        Process::find(record.pid, self.owner).filter(|_| record.is_alive())
    }

    /// The daemon's record.
    pub fn record(&self) -> Option<&Record> {
        self.found.first().map(|found| &found.record)
    }

    /// Removes files left by dead daemons.
    pub fn remove_leftovers(&self) {
        for found in self.found.iter().filter(|found| !found.record.is_alive()) {
            found.endpoint.remove();
        }
    }

    fn connect(&self, patience: Duration) -> Result<UnixStream, Error> {
        let mut last = Error::new(ErrorKind::Unreachable, "this mount has no daemon");
        for Found { endpoint, .. } in &self.found {
            match endpoint.connect(patience).and_then(|stream| Ok((process::peer(&stream)?, stream))) {
                Ok((peer, stream)) if is_owner_s(peer.uid, self.owner, &endpoint.socket()) => return Ok(stream),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    last = Error::new(ErrorKind::TimedOut, "the daemon does not accept requests")
                }
                Err(error) => {
                    last = Error::new(ErrorKind::Unreachable, format!("cannot connect to {}: {error}", endpoint.socket().display()))
                }
            }
        }
        Err(last)
    }
}

/// Whether a user's record may stand for the owner's mount. A mismatch is logged, since it is deliberate.
fn is_owner_s(user: u32, owner: u32, path: &Path) -> bool {
    if user != owner {
        tracing::warn!(?path, user, owner, "ignoring a record that claims another user's mount");
    }
    user == owner
}

type Answered = Result<(serde_json::Value, Vec<serde_json::Value>), Error>;

fn exchange(stream: &UnixStream, request: &Request, patience: Duration, hear: &mut dyn FnMut(Event)) -> io::Result<Answered> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // It may contain secrets: allocated once, and wiped.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_LIMIT as usize + 1));
    serde_json::to_writer(&mut *line, request)?;
    line.push(b'\n');
    let mut writer = stream;
    writer.write_all(&line)?;
    drop(line);
    let mut reader = BufReader::new(stream);
    let mut members = Vec::new();
    loop {
        let mut line = Vec::new();
        (&mut reader).take(LINE_LIMIT).read_until(b'\n', &mut line)?;
        match serde_json::from_slice(&line).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))? {
            Line::Event(event) => hear(event),
            Line::Part(part) => members.extend(part),
            Line::Alive => {}
            Line::Ok(value) => return Ok(Ok((value, members))),
            Line::Error { kind, message } => return Ok(Err(Error::new(ErrorKind::of_name(&kind), message))),
        }
    }
}
