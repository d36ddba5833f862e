//! Files that the kernel reads by itself ("passthrough").
//!
//! The kernel has two ways to read an inode, and refuses an open that asks for the other while any file of it is open: all opens of an inode
//! must be cached, or all must name the same backing. So the first open decides, and the others follow until the last one is released.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, ReplyOpen};
use parking_lot::Mutex;

/// How the open files of an inode are read.
enum Mode {
    /// Through requests and the page cache.
    Cached,
    /// By the kernel.
    Backed(Arc<BackingId>),
}

struct Opened {
    mode: Mode,
    handles: u64,
}

/// The open files of a mount on which the kernel may read files by itself.
#[derive(Default)]
pub(super) struct Passthrough {
    /// Open inodes. Held for map operations, and for registering a backing: no open of the inode may be answered meanwhile.
    opened: Mutex<HashMap<u64, Opened>>,
    /// The kernel has refused a backing.
    refused: AtomicBool,
}

impl Passthrough {
    /// Whether a backing would be used if the inode were opened now.
    pub(super) fn wants(&self, inode: INodeNo) -> bool {
        !self.refused.load(Ordering::Relaxed) && !self.opened.lock().contains_key(&inode.0)
    }

    /// Answers an open of an inode whose every open passes here.
    pub(super) fn answer(&self, inode: INodeNo, handle: FileHandle, flags: FopenFlags, file: Option<&File>, reply: ReplyOpen) {
        let backing = {
            let mut opened = self.opened.lock();
            let here = opened.entry(inode.0).or_insert_with(|| {
                let backing = file.and_then(|file| self.register(file, &reply));
                Opened { mode: backing.map_or(Mode::Cached, |backing| Mode::Backed(Arc::new(backing))), handles: 0 }
            });
            here.handles += 1;
            match &here.mode {
                Mode::Cached => None,
                Mode::Backed(backing) => Some(Arc::clone(backing)),
            }
        };
        match backing {
            // Pages cached before would only take memory.
            Some(backing) => reply.opened_passthrough(handle, flags - FopenFlags::FOPEN_KEEP_CACHE, &backing),
            None => reply.opened(handle, flags),
        }
    }

    /// Notes that a file was closed.
    pub(super) fn release(&self, inode: INodeNo) {
        let mut opened = self.opened.lock();
        let Some(here) = opened.get_mut(&inode.0) else { return };
        here.handles -= 1;
        let last = if here.handles == 0 { opened.remove(&inode.0) } else { None };
        drop(opened);
        // Takes the backing from the kernel.
        drop(last);
    }

    /// Gives a file to the kernel, whose open file description then lasts until the last reader is gone.
    fn register(&self, file: &File, reply: &ReplyOpen) -> Option<BackingId> {
        match reply.open_backing(file) {
            Ok(backing) => Some(backing),
            Err(error) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::info!(%error, "the kernel does not read cached files by itself; they are read through ocifs");
                }
                None
            }
        }
    }
}
