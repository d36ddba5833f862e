//! The asking side. Blocking with a deadline, so that commands need no runtime and a hung daemon costs seconds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Error, LINE_LIMIT, Line, Place, Record, Request, Status};
use crate::error::ErrorKind;
use crate::publish::Event;
use crate::sys::process::{self, Peer};

/// How long an answer may take before the daemon counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a daemon at work may be silent before it counts as hung: it gives a sign of life more often.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Finds and asks the daemon of one mount.
#[derive(Clone, Debug)]
pub struct Client {
    places: Vec<Place>,
}

impl Client {
    /// A client for the mount with this device number, whose socket lies in one of these directories.
    pub fn new(directories: &[PathBuf], device: (u32, u32)) -> Self {
        Self { places: directories.iter().map(|directory| Place::new(directory, device)).collect() }
    }

    /// How the mount is.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn status(&self, patience: Duration) -> Result<Status, Error> {
        let value = self.ask(&Request::Status, patience)?;
        serde_json::from_value(value)
            .map_err(|error| Error::new(ErrorKind::Other, format!("the daemon's answer is not understood: {error}")))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// `Unreachable` if nobody listens, `TimedOut` if the daemon hangs, else what the daemon says.
    pub fn ask(&self, request: &Request, patience: Duration) -> Result<serde_json::Value, Error> {
        self.converse(request, patience, &mut |_| {}).map(|(answer, _)| answer)
    }

    /// Sends a request whose answer is a list and may take long, telling `hear` of what happens meanwhile.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn collect<T: DeserializeOwned>(&self, request: &Request, hear: &mut dyn FnMut(Event)) -> Result<Vec<T>, Error> {
        let (_, members) = self.converse(request, SILENCE, hear)?;
        let understood = members.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        understood.map_err(|error| Error::new(ErrorKind::Other, format!("the daemon's answer is not understood: {error}")))
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
            _ => Error::new(ErrorKind::Unreachable, format!("the daemon ended the conversation: {error}")),
        })?
    }

    /// The process that listens, whether or not it still answers; else the one in the record, if it still runs.
    pub fn daemon(&self) -> Option<u32> {
        if let Ok(stream) = self.connect(PATIENCE)
            && let Ok(Peer { pid, .. }) = process::peer(&stream)
            && pid != 0
        {
            return Some(pid);
        }
        self.record().filter(Record::is_alive).map(|record| record.pid)
    }

    /// What the daemon wrote about itself.
    pub fn record(&self) -> Option<Record> {
        self.places.iter().find_map(Place::read_record)
    }

    /// Removes what a daemon left that is gone.
    pub fn remove_leftovers(&self) {
        for place in self.places.iter().filter(|place| place.socket.exists() || place.record.exists()) {
            place.remove();
        }
    }

    fn connect(&self, patience: Duration) -> Result<UnixStream, Error> {
        let mut last = Error::new(ErrorKind::Unreachable, "no daemon listens for this mount");
        for place in &self.places {
            match connect(&place.socket, patience) {
                Ok(stream) => return trusted(stream),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    last = Error::new(ErrorKind::TimedOut, "the daemon does not accept requests")
                }
                Err(error) => last = Error::new(ErrorKind::Unreachable, format!("cannot ask {}: {error}", place.socket.display())),
            }
        }
        Err(last)
    }
}

/// A socket on which another user listens is not obeyed; root asks everybody's daemon.
fn trusted(stream: UnixStream) -> Result<UnixStream, Error> {
    let own = process::effective_uid();
    match process::peer(&stream) {
        Ok(peer) if own == 0 || peer.uid == own || peer.uid == 0 => Ok(stream),
        _ => Err(Error::new(ErrorKind::NotPermitted, "the mount's socket belongs to another user")),
    }
}

/// Connecting waits while the listener's queue is full, which a hung daemon never empties; hence a thread that
/// can be left behind.
fn connect(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (sender, receiver) = mpsc::channel();
    let socket = socket.to_owned();
    std::thread::spawn(move || sender.send(UnixStream::connect(socket)));
    receiver.recv_timeout(patience).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

type Answered = Result<(serde_json::Value, Vec<serde_json::Value>), Error>;

fn exchange(stream: &UnixStream, request: &Request, patience: Duration, hear: &mut dyn FnMut(Event)) -> io::Result<Answered> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut writer = stream;
    writer.write_all(&line)?;
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
