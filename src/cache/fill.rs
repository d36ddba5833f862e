//! The first pass over a blob: spans go into a directory of their own, which is moved into place on commit.
//!
//! Until then it is invisible, and the evictor ignores it. Dropping a fill removes its directory; that of a killed process is removed by the next
//! evictor.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::config::Protection;
use super::layout::{LONGEST_SPAN, Layout, MEMBER_FILE, Which, split};
use super::shared::{Shared, failed};
use super::span_key::{chunk_position, object_key};
use super::stream_files::{discard, member_file_name};
use super::table::{Identity, Table};
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::seal::ChunkKey;

/// A stream being filled for the first time, span by span, invisible to readers until committed.
pub struct Fill {
    shared: Arc<Shared>,
    blob: Digest,
    identity: Identity,
    key: Option<ChunkKey>,
    work: PathBuf,
    starts: Vec<u64>,
    members: Vec<Range<u64>>,
    /// Checksums of the stored spans.
    present: Vec<Option<u64>>,
    /// End of the stream so far, and its stored length.
    position: u64,
    stored: u64,
    main: OutputFile,
    member: OutputFile,
    /// Bytes counted for this fill.
    counted: u64,
    committed: bool,
}

/// The file being written, and the end of the blocks counted for it.
#[derive(Default)]
struct OutputFile {
    which: Option<Which>,
    file: Option<File>,
    counted: u64,
}

impl Fill {
    pub(super) fn new(shared: &Arc<Shared>, blob: &Digest, protection: &Protection) -> Result<Self, Error> {
        let identity = Identity::random(matches!(protection, Protection::Sealed(_)));
        let key = match protection {
            Protection::Plain => None,
            Protection::Sealed(key) => Some(object_key(key, blob, identity)),
        };
        let work = shared.work_directory().map_err(failed("make a directory in", &shared.root))?;
        Ok(Self {
            shared: Arc::clone(shared),
            blob: *blob,
            identity,
            key,
            work,
            starts: Vec::new(),
            members: Vec::new(),
            present: Vec::new(),
            position: 0,
            stored: 0,
            main: OutputFile::default(),
            member: OutputFile::default(),
            counted: 0,
            committed: false,
        })
    }

    /// Starts a member with its own file: this range of the stream, of which no span has been given yet. One smaller than 1 MiB is treated as ordinary
    /// bytes.
    pub fn member(&mut self, stream: Range<u64>) -> Result<(), Error> {
        let free_from = self.members.last().map_or(0, |member| member.end).max(self.position);
        if stream.start < free_from || stream.end < stream.start {
            return Err(self.invalid("a member was announced too late"));
        }
        if stream.end - stream.start >= MEMBER_FILE && self.key.is_none() {
            self.members.push(stream);
        }
        Ok(())
    }

    /// The next span. `false` if there is no room for it: it is skipped, and the fill continues.
    pub fn span(&mut self, data: &[u8]) -> Result<bool, Error> {
        let number = u32::try_from(self.starts.len()).map_err(|_| self.invalid("it has too many spans"))?;
        if data.len() as u64 > LONGEST_SPAN {
            return Err(self.invalid("a span is too long"));
        }
        let sealed = self.key.as_ref().map(|key| {
            let mut out = Vec::with_capacity(data.len() + data.len() / 512);
            key.seal(chunk_position(number), data, &mut out);
            out
        });
        let bytes = sealed.as_deref().unwrap_or(data);
        let at = if sealed.is_some() { self.stored } else { self.position };
        let kept = self.keep(at..at + bytes.len() as u64, bytes)?;
        self.present.push(kept.then(|| self.identity.checksum(number, bytes)));
        self.starts.push(self.position);
        self.position += data.len() as u64;
        self.stored += bytes.len() as u64;
        Ok(kept)
    }

    fn keep(&mut self, range: Range<u64>, mut bytes: &[u8]) -> Result<bool, Error> {
        let pieces: Vec<_> = split(&self.members, range).collect();
        let block = self.shared.block;
        let mut cost = 0;
        for piece in &pieces {
            let target = if piece.file == Which::Main { &self.main } else { &self.member };
            let counted = if target.which == Some(piece.file) { target.counted } else { 0 };
            cost += (piece.at.end.div_ceil(block) * block).saturating_sub((piece.at.start / block * block).max(counted));
        }
        let Some(reservation) = self.shared.reserve(cost)? else { return Ok(false) };
        self.counted += cost;
        for piece in pieces {
            let length = usize::try_from(piece.at.end - piece.at.start).unwrap_or(usize::MAX);
            let Some((now, later)) = bytes.split_at_checked(length) else { break };
            bytes = later;
            if let Err(error) = self.write(piece.file, now, piece.at.start, block) {
                if !durable::is_full(&error) {
                    return Err(failed("write to", &self.work)(error));
                }
                self.shared.warn_full(&error);
                return Ok(false);
            }
        }
        self.shared.ledger.advance(reservation.bytes());
        Ok(true)
    }

    fn write(&mut self, which: Which, bytes: &[u8], at: u64, block: u64) -> io::Result<()> {
        let name = match which {
            Which::Main => format!("{:016x}.main", self.identity.instance),
            Which::Member(number) => {
                let start = self.members.get(number).map_or(0, |member| member.start);
                member_file_name(self.identity, start)
            }
        };
        let path = self.work.join(name);
        let target = if which == Which::Main { &mut self.main } else { &mut self.member };
        // Members come one after another, so only the latest file is kept open.
        if target.which != Some(which) {
            *target = OutputFile { which: Some(which), ..OutputFile::default() };
        }
        target.counted = (at + bytes.len() as u64).div_ceil(block) * block;
        let file = match target.file.take() {
            Some(file) => file,
            None => durable::open_private(&path, true)?,
        };
        target.file.insert(file).write_all_at(bytes, at)
    }

    /// Makes everything visible, now that the blob's digest is verified. Dropping instead discards it. Nothing is synced: anything torn by a power cut
    /// fails its checksum.
    pub fn commit(mut self) -> Result<(), Error> {
        let (starts, members) = (std::mem::take(&mut self.starts), std::mem::take(&mut self.members));
        let layout = Layout::new(starts, self.position, members).stored_as(self.key.is_some())?;
        let name = Shared::stream_name(&self.blob, self.key.is_some(), &layout.fingerprint());
        Table::write(&self.work, &name, &layout, self.identity, &self.present, self.shared.ledger.now())
            .map_err(failed("write a table in", &self.work))?;
        let directory = self.shared.stream_directory(&name);
        let _structure = self.shared.structure_lock()?;
        let replaced = discard(&self.shared, &directory)?;
        let parent = directory.parent().unwrap_or(&directory);
        durable::make_directory(parent).map_err(failed("make", parent))?;
        std::fs::rename(&self.work, &directory).map_err(failed("make", &directory))?;
        self.committed = true;
        self.shared.give_back(replaced);
        Ok(())
    }

    fn invalid(&self, what: &str) -> Error {
        Error::new(ErrorKind::Invalid, format!("the stream of {} cannot be cached: {what}", self.blob))
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.work) {
            tracing::warn!(%error, directory = %self.work.display(), "cannot remove an unfinished fill");
            return;
        }
        self.shared.give_back(self.counted);
    }
}
