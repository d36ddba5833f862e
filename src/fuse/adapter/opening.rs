//! Opens files that the kernel may read by itself.

use std::sync::Arc;

use fuser::{FileHandle, INodeNo, ReplyOpen, Request};

use super::Adapter;
use super::replies::open_flags;
use crate::fuse::passthrough::Passthrough;

impl Adapter {
    pub(super) fn open_backed(&self, request: &Request, inode: INodeNo, passthrough: Arc<Passthrough>, reply: ReplyOpen) {
        let file_system = Arc::clone(&self.file_system);
        let wants = passthrough.wants(inode);
        let work = async move {
            match wants {
                true => file_system.open_backed(inode.0).await,
                false => file_system.open(inode.0, false).await.map(|open| (open, None)),
            }
        };
        self.operations.run(request, "open", inode, reply, work, move |reply, (open, file)| {
            let (handle, flags) = (FileHandle(open.handle), open_flags(&open, false));
            match open.direct {
                true => reply.opened(handle, flags),
                false => passthrough.answer(inode, handle, flags, file.as_ref(), reply),
            }
        });
    }
}
