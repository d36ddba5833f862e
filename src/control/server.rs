//! The answering side: a task of the daemon's runtime.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Answer, Error, Handler, LINE_LIMIT, Place, Record, Request, directory};
use crate::error::ErrorKind;
use crate::sys::process;

/// How long a client may take to say what it wants.
const IDLE: Duration = Duration::from_secs(10);
/// Conversations at a time.
const CONVERSATIONS: usize = 32;

/// A bound socket. Dropping it removes socket and record, unless a later daemon has replaced them.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    place: Place,
    inode: u64,
}

impl Server {
    /// Listens for the mount with this device number. Replaces what an earlier daemon left under that number.
    /// Must be called inside a runtime.
    ///
    /// # Errors
    /// The directory or socket cannot be made.
    pub fn bind(in_directory: &Path, device: (u32, u32), record: &Record) -> io::Result<Self> {
        directory(in_directory)?;
        let place = Place::new(in_directory, device);
        place.remove();
        let listener = UnixListener::bind(&place.socket)?;
        fs::write(&place.record, serde_json::to_vec(record)?)?;
        let inode = fs::symlink_metadata(&place.socket)?.ino();
        Ok(Self { listener, place, inode })
    }

    /// Answers until dropped.
    pub async fn serve(&self, handler: Arc<dyn Handler>) {
        let slots = Arc::new(Semaphore::new(CONVERSATIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, handler.as_ref()).await {
                            tracing::debug!(%error, "a client left without an answer");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.place.socket).is_ok_and(|metadata| metadata.ino() == self.inode) {
            self.place.remove();
        }
    }
}

async fn converse(stream: UnixStream, handler: &dyn Handler) -> io::Result<()> {
    let peer = process::peer(&stream)?;
    if peer.uid != 0 && peer.uid != process::effective_uid() {
        tracing::warn!(uid = peer.uid, pid = peer.pid, "refused a client of another user");
        return Ok(());
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    timeout(IDLE, BufReader::new(reader.take(LINE_LIMIT)).read_until(b'\n', &mut line)).await??;
    let answer = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => answer(handler, request).await.unwrap_or_else(Answer::from),
        Err(error) => Error::new(ErrorKind::Unsupported, format!("this daemon does not know the request: {error}")).into(),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(IDLE, writer.write_all(&text)).await?
}

async fn answer(handler: &dyn Handler, request: Request) -> Result<Answer, Error> {
    let value = match request {
        Request::Status => {
            let status = handler.status().await?;
            serde_json::to_value(status).map_err(|error| Error::new(ErrorKind::Other, error.to_string()))?
        }
        Request::Version => serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }),
        Request::Refresh { path } => {
            handler.refresh(path.as_deref()).await?;
            serde_json::Value::Null
        }
        Request::Unmount { lazy } => {
            handler.unmount(lazy).await?;
            serde_json::Value::Null
        }
    };
    Ok(Answer::Ok(value))
}
