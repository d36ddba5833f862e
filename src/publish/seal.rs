//! The oci-sync envelope around a layer that is being packed: nothing plain reaches the disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use crate::oci::{Algorithm, Digest, Hasher};
use crate::seal::{EnvelopeHeader, EnvelopeKey, EnvelopeWriter};

/// Bytes that are encrypted at a time.
const PIECE: usize = 64 << 10;

/// Key and header of one message. The salt and the nonce are fresh: a message is written once.
#[derive(Clone)]
pub(super) struct Sealed {
    pub key: EnvelopeKey,
    pub header: EnvelopeHeader,
}

/// Encrypts what is written to it. Its clones are one.
#[derive(Clone)]
pub(super) struct SealedWriter(Arc<Mutex<Option<Sink>>>);

struct Sink {
    file: BufWriter<File>,
    message: EnvelopeWriter,
    hasher: Hasher,
    length: u64,
}

impl Sealed {
    /// Begins the message in a file.
    pub fn writer(&self, file: BufWriter<File>) -> Result<SealedWriter, Error> {
        let mut sink =
            Sink { file, message: EnvelopeWriter::new(&self.key, &self.header), hasher: Hasher::new(Algorithm::Sha256), length: 0 };
        sink.write(&self.header.bytes()).map_err(|error| Error::io("writing a sealed layer", &error))?;
        Ok(SealedWriter(Arc::new(Mutex::new(Some(sink)))))
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

impl SealedWriter {
    /// Ends the message; digest and length of the whole.
    pub fn finish(&self) -> Result<(Digest, u64), Error> {
        let sink = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Sink { mut file, message, mut hasher, length }) = sink else {
            return Err(Error::other("a sealed layer was ended twice".to_owned()));
        };
        let tag = message.finish();
        hasher.update(&tag);
        file.write_all(&tag).and_then(|()| file.flush()).map_err(|error| Error::io("writing a sealed layer", &error))?;
        Ok((hasher.finish(), length + tag.len() as u64))
    }
}

impl Write for SealedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = sink.as_mut().ok_or_else(|| io::Error::other("a sealed layer goes on behind its end"))?;
        for piece in bytes.chunks(PIECE) {
            let mut piece = piece.to_vec();
            sink.message.encrypt(&mut piece).map_err(io::Error::other)?;
            sink.write(&piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sink.as_mut().map_or(Ok(()), |sink| sink.file.flush())
    }
}
