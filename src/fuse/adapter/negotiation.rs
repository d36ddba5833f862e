//! What a mount asks of the kernel when they connect.

use std::sync::Arc;

use fuser::{InitFlags, KernelConfig};

use super::Adapter;
use crate::fuse::caller::is_privileged;

/// Largest request in either direction; reads never request more.
const LARGEST_REQUEST: u32 = 1 << 20;
/// Requests that the kernel keeps in flight in the background, mostly read-ahead.
const BACKGROUND: u16 = 64;

impl Adapter {
    /// Requests the capabilities that the file system can use, and sets limits.
    pub(super) fn negotiate(&mut self, config: &mut KernelConfig) {
        for wanted in [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_CACHE_SYMLINKS] {
            if config.add_capabilities(wanted).is_err() {
                tracing::info!(?wanted, "the kernel does not support this capability");
            }
        }
        if self.file_system.is_writable() {
            // Without the second the kernel requests a file's capabilities at every single write.
            for wanted in [InitFlags::FUSE_WRITEBACK_CACHE, InitFlags::FUSE_HANDLE_KILLPRIV_V2] {
                if config.add_capabilities(wanted).is_err() {
                    tracing::info!(?wanted, "the kernel does not support this capability; small writes are slow");
                }
            }
        }
        if self.file_system.skips_opens() {
            // Pages of generated files, which would otherwise stay for ever, are dropped when their time changes.
            let wanted = InitFlags::FUSE_AUTO_INVAL_DATA;
            self.skips_opens = config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT) && config.add_capabilities(wanted).is_ok();
            if !self.skips_opens {
                tracing::warn!("the kernel cannot skip opens; every file is opened as usual");
            }
        }
        if !self.file_system.is_writable() && !self.skips_opens && is_privileged() {
            self.request_passthrough(config);
        }
        // Both reject only zero and values that are too large.
        let _ = config.set_max_write(LARGEST_REQUEST);
        let _ = config.set_max_background(BACKGROUND);
    }

    /// Lets the kernel read files by itself. Depth 1 permits a cache on any file system that is not itself stacked.
    fn request_passthrough(&mut self, config: &mut KernelConfig) {
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok() {
            self.passthrough = Some(Arc::default());
        }
    }
}
