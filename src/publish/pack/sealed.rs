//! The oci-sync envelope around a layer being packed: no plaintext reaches the disk.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::artifact::Artifacts;
use crate::blocking::blocking;
use crate::content::BlobSource;
use crate::error::Error;
use crate::layer::LayerIndex;
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, Repository};
use crate::publish::disk;
use crate::seal::{ENVELOPE_HEADER, ENVELOPE_TAG, EnvelopeCheck, EnvelopeHeader, EnvelopeKey, EnvelopeWriter, ciphertext_length};

/// Bytes encrypted at a time.
const PIECE: usize = 64 << 10;

/// Key and header of one message. Salt and nonce are fresh: a message is written once.
#[derive(Clone)]
pub(in crate::publish) struct Sealed {
    key: EnvelopeKey,
    header: EnvelopeHeader,
    artifacts: Artifacts,
    like: Option<BlobSource>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Sealed(redacted)")
    }
}

/// Encrypts what is written to it. Clones share one message.
#[derive(Clone)]
pub(in crate::publish) struct SealedWriter(Arc<Mutex<Option<Sink>>>);

struct Sink {
    file: BufWriter<File>,
    message: EnvelopeWriter,
    hasher: Hasher,
    length: u64,
}

impl Sealed {
    /// Starts the message in a file.
    pub fn writer(&self, file: BufWriter<File>) -> Result<SealedWriter, Error> {
        let mut sink =
            Sink { file, message: EnvelopeWriter::new(&self.key, &self.header), hasher: Hasher::new(Algorithm::Sha256), length: 0 };
        sink.write(&self.header.bytes()).map_err(|error| disk::full(Error::io("writing a sealed layer", error)))?;
        Ok(SealedWriter(Arc::new(Mutex::new(Some(sink)))))
    }
}

impl Sealed {
    /// A fresh message under the passphrase that opened `like`, or the first one given. `None` without a passphrase.
    pub async fn fresh(artifacts: &Artifacts, like: Option<BlobSource>) -> Result<Option<Self>, Error> {
        let header = EnvelopeHeader { salt: rand::random(), nonce: rand::random() };
        let key = artifacts.seal_key(like.as_ref(), &header.salt).await?;
        Ok(key.map(|key| Self { key, header, artifacts: artifacts.clone(), like }))
    }

    /// Registers the index of a layer sealed by this with the readers of this process.
    pub async fn adopt(&self, repository: &Repository, (digest, size): (Digest, u64), index: &LayerIndex) {
        let layer = Descriptor::new("application/octet-stream", digest, size);
        self.artifacts.adopt_sealed(repository, &layer, self.header, &self.key, index).await;
    }

    /// Whether an earlier message is complete and under the same passphrase.
    pub async fn opens(&self, path: &Path) -> Result<bool, Error> {
        let reading = path.to_path_buf();
        let header = blocking(move || {
            let failed = |error: io::Error| disk::failed("reading", &reading, error);
            let mut header = [0; ENVELOPE_HEADER];
            File::open(&reading).and_then(|mut file| file.read_exact(&mut header)).map_err(failed)?;
            EnvelopeHeader::parse(&header)
        });
        let header = header.await?;
        let Some(key) = self.artifacts.seal_key(self.like.as_ref(), &header.salt).await? else { return Ok(false) };
        let reading = path.to_path_buf();
        blocking(move || check(&reading, &key, &header)).await
    }
}

fn check(path: &Path, key: &EnvelopeKey, header: &EnvelopeHeader) -> Result<bool, Error> {
    let failed = |error: io::Error| disk::failed("reading", path, error);
    let mut file = BufReader::with_capacity(PIECE, File::open(path).map_err(failed)?);
    file.read_exact(&mut [0; ENVELOPE_HEADER]).map_err(failed)?;
    let mut rest = ciphertext_length(file.get_ref().metadata().map_err(failed)?.len())?;
    let mut check = EnvelopeCheck::new(key, header);
    let mut piece = vec![0; PIECE];
    while rest > 0 {
        let room = usize::try_from(rest).unwrap_or(usize::MAX).min(PIECE);
        let place = piece.get_mut(..room).unwrap_or_default();
        file.read_exact(place).map_err(failed)?;
        check.update(place);
        rest -= room as u64;
    }
    let mut tag = [0; ENVELOPE_TAG];
    file.read_exact(&mut tag).map_err(failed)?;
    Ok(check.finish(&tag).is_ok())
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

impl SealedWriter {
    /// Ends the message; returns digest and length of the whole.
    pub fn finish(&self) -> Result<(Digest, u64), Error> {
        let sink = self.0.lock().take();
        let Some(Sink { mut file, message, mut hasher, length }) = sink else {
            return Err(Error::other("a sealed layer was finished twice"));
        };
        let tag = message.finish();
        hasher.update(&tag);
        file.write_all(&tag).and_then(|()| file.flush()).map_err(|error| disk::full(Error::io("writing a sealed layer", error)))?;
        Ok((hasher.finish(), length + tag.len() as u64))
    }
}

impl Write for SealedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sink = self.0.lock();
        let sink = sink.as_mut().ok_or_else(|| io::Error::other("a sealed layer was written to after its end"))?;
        for piece in bytes.chunks(PIECE) {
            let mut piece = piece.to_vec();
            sink.message.encrypt(&mut piece).map_err(io::Error::other)?;
            sink.write(&piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sink = self.0.lock();
        sink.as_mut().map_or(Ok(()), |sink| sink.file.flush())
    }
}
