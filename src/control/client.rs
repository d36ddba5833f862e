//! The asking side. Blocking with a deadline, so that commands need no runtime and a hung daemon costs seconds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::{Answer, Error, LINE_LIMIT, Place, Record, Request, Status};
use crate::error::ErrorKind;
use crate::sys::process::{self, Peer};

/// How long an answer may take before the daemon counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(5);

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
        let stream = self.connect(patience)?;
        exchange(&stream, request, patience).map_err(|error| match error.kind() {
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

fn exchange(stream: &UnixStream, request: &Request, patience: Duration) -> io::Result<Result<serde_json::Value, Error>> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut writer = stream;
    writer.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(LINE_LIMIT).read_until(b'\n', &mut answer)?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok(answer.into_result())
}
