//! The server: a task on the daemon's runtime.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::event_queue::EventQueue;
use super::{Endpoint, Handler, LINE_LIMIT, Line, Record, Request, endpoint};
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::publish::Listener;
use crate::sys::process;

/// How long a client may take to send its request.
const IDLE: Duration = Duration::from_secs(10);
/// Interval of keep-alives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// List elements per line; each is a path with figures, or the report of a tag.
const PART: usize = 64;
/// Concurrent connections.
const CONVERSATIONS: usize = 32;

/// A bound socket. Dropping it removes the socket and the record.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    endpoint: Endpoint,
    record: Record,
}

impl Server {
    /// Listens for the mount of this record and removes files of dead daemons. Needs a runtime.
    ///
    /// # Errors
    /// The directory or socket cannot be created.
    pub fn bind(in_directory: &Path, record: Record) -> io::Result<Self> {
        let directory = durable::private_directory(in_directory)?;
        endpoint::sweep(in_directory, record.device);
        let endpoint = Endpoint::new(directory, in_directory);
        let listener = UnixListener::bind(endpoint.socket())?;
        let server = Self { listener, endpoint, record };
        // Written last: a record implies a listening socket.
        server.endpoint.write(&server.record)?;
        Ok(server)
    }

    /// Removes the mount's device number from the record, since it may be reused. Clients that already found the daemon still reach it.
    pub fn mount_is_gone(&self) {
        if let Err(error) = self.endpoint.write(&Record { device: None, ..self.record.clone() }) {
            tracing::warn!(%error, "cannot update the record of this mount");
        }
    }

    /// Serves until dropped.
    pub async fn serve(&self, handler: Arc<dyn Handler>) {
        let slots = Arc::new(Semaphore::new(CONVERSATIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, handler.as_ref()).await {
                            tracing::debug!(%error, "a client disconnected before the answer");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.endpoint.remove();
    }
}

async fn converse(stream: UnixStream, handler: &dyn Handler) -> io::Result<()> {
    let peer = process::peer(&stream)?;
    if peer.uid != 0 && peer.uid != process::effective_uid() {
        tracing::warn!(uid = peer.uid, pid = peer.pid, "refused a connection from another user");
        return Ok(());
    }
    let (mut reader, writer) = stream.into_split();
    let line = timeout(IDLE, request_line(&mut reader)).await??;
    let queue = Arc::new(EventQueue::default());
    let mut pump = Pump { writer, waiting: VecDeque::new() };
    let request = serde_json::from_slice::<Request>(&line);
    drop(line);
    let answer = match request {
        Ok(request) => {
            tokio::select! {
                answer = answer(handler, request, &queue) => answer,
                error = pump.run(&queue) => return Err(error),
                () = has_left(&mut reader) => {
                    tracing::debug!("a client disconnected; its request is cancelled");
                    return Ok(());
                }
            }
        }
        Err(error) => Err(Error::new(ErrorKind::Unsupported, format!("unknown request: {error}"))),
    };
    pump.take(&queue)?;
    match answer {
        Ok(Reply::Value(value)) => pump.add(&Line::Ok(value))?,
        Ok(Reply::List(members)) => pump.add_list(members)?,
        Err(error) => pump.add(&error.into())?,
    }
    timeout(IDLE, pump.finish()).await?
}

/// Reads the request line. It may contain secrets: no copy stays in memory.
async fn request_line(reader: &mut OwnedReadHalf) -> io::Result<Zeroizing<Vec<u8>>> {
    // Allocated once: a growing vector leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_LIMIT as usize + 1));
    let mut reader = reader.take(LINE_LIMIT);
    let mut searched = 0;
    loop {
        if reader.read_buf(&mut *line).await? == 0 {
            return Ok(line);
        }
        if let Some(end) = line.iter().skip(searched).position(|byte| *byte == b'\n') {
            line.truncate(searched + end);
            return Ok(line);
        }
        searched = line.len();
    }
}

/// Waits until the client closes the connection; ignores further input.
async fn has_left(reader: &mut OwnedReadHalf) {
    let mut more = [0; 256];
    while reader.read(&mut more).await.is_ok_and(|length| length > 0) {}
}

/// Writes lines to the socket. Cancel-safe: dropping a future loses no byte.
struct Pump {
    writer: OwnedWriteHalf,
    waiting: VecDeque<u8>,
}

impl Pump {
    /// Sends events and keep-alives while the client accepts them.
    async fn run(&mut self, queue: &EventQueue) -> io::Error {
        loop {
            let sent = if self.waiting.is_empty() {
                match timeout(HEARTBEAT, queue.filled()).await {
                    Ok(()) => self.take(queue),
                    Err(_) => self.add(&Line::Alive),
                }
            } else {
                self.step().await
            };
            if let Err(error) = sent {
                return error;
            }
        }
    }

    async fn step(&mut self) -> io::Result<()> {
        let (front, _) = self.waiting.as_slices();
        let length = self.writer.write(front).await?;
        self.waiting.drain(..length);
        Ok(())
    }

    fn add(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.waiting, line)?;
        self.waiting.push_back(b'\n');
        Ok(())
    }

    fn take(&mut self, queue: &EventQueue) -> io::Result<()> {
        queue.take().into_iter().try_for_each(|event| self.add(&Line::Event(event)))
    }

    /// Queues a list in lines of limited length.
    fn add_list(&mut self, members: Vec<serde_json::Value>) -> io::Result<()> {
        let mut members = members.into_iter().peekable();
        while members.peek().is_some() {
            self.add(&Line::Part(members.by_ref().take(PART).collect()))?;
        }
        self.add(&Line::Ok(serde_json::Value::Null))
    }

    async fn finish(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            self.step().await?;
        }
        Ok(())
    }
}

/// A handler's answer.
enum Reply {
    Value(serde_json::Value),
    List(Vec<serde_json::Value>),
}

async fn answer(handler: &dyn Handler, request: Request, queue: &Arc<EventQueue>) -> Result<Reply, Error> {
    let nothing = Ok(Reply::Value(serde_json::Value::Null));
    match request {
        Request::Status => value(handler.status().await?),
        Request::Version => value(serde_json::json!({ "version": env!("CARGO_PKG_VERSION") })),
        Request::Refresh { path } => handler.refresh(path.as_deref()).await.and(nothing),
        Request::LetGo => handler.let_go().await.and(nothing),
        Request::Unmount { lazy } => handler.unmount(lazy).await.and(nothing),
        Request::Staged { selection } => list(handler.staged(&selection).await?),
        Request::Sync { selection, options, passphrases } => {
            let queue = Arc::clone(queue);
            let listener: Listener = Arc::new(move |event| queue.push(event));
            list(handler.sync(&selection, &options, passphrases, &listener).await?)
        }
        Request::Differences { selection } => list(handler.differences(&selection).await?),
        Request::Discard { selection } => list(handler.discard(&selection).await?),
        Request::New { reference } => value(handler.new_tag(&reference).await?),
        Request::PublishAtEnd { push } => handler.publish_at_end(push).await.and(nothing),
    }
}

fn value(answer: impl Serialize) -> Result<Reply, Error> {
    to_json(answer).map(Reply::Value)
}

fn list(answer: Vec<impl Serialize>) -> Result<Reply, Error> {
    answer.into_iter().map(to_json).collect::<Result<_, _>>().map(Reply::List)
}

fn to_json(value: impl Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
}
