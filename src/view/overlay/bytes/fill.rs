//! Copies the missing bytes of staged files from the files below, so that staged files outlive them.
//!
//! Nothing visible changes. Handles one file at a time across all tags edited here; a file without enough space keeps depending
//! on the file below it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::staging::DataId;
use crate::view::overlay::Overlay;
use crate::view::overlay::bytes::layered::{Layered, Plan};
use crate::view::overlay::bytes::lower::Blobs;

/// Bytes filled in at a time. The file's lock is held while they are written.
const CHUNK: u64 = 1 << 20;
/// Delay before a failed attempt is repeated.
const RETRY: Duration = Duration::from_secs(60);

impl Overlay {
    /// Fills in staged files for as long as the overlay lives. Further calls do nothing.
    pub fn keep_filling(self: &Arc<Self>) {
        if !self.is_filling.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep_filling(Arc::downgrade(self)));
        }
    }

    /// Signals that there is something to fill in.
    pub(in crate::view::overlay) fn wake_filler(&self) {
        self.filler.notify_one();
    }

    /// Fills in all staged files of this tag. Returns how many it completed.
    ///
    /// # Errors
    /// NoSpace, and errors of the disk or the registry.
    pub async fn fill(self: &Arc<Self>) -> Result<usize, Error> {
        let mut count = 0;
        for id in self.upper().partial() {
            count += usize::from(fill_one(&Arc::downgrade(self), id).await?);
        }
        Ok(count)
    }
}

/// Fills in all files that need it, then waits for more.
async fn keep_filling(overlay: Weak<Overlay>) {
    let mut told = BTreeSet::new();
    loop {
        let Some((ids, filler, turn)) =
            overlay.upgrade().map(|overlay| (overlay.upper().partial(), Arc::clone(&overlay.filler), overlay.upper().filling()))
        else {
            return;
        };
        let mut is_left = false;
        for id in ids {
            let Ok(_turn) = turn.acquire().await else { return };
            let Err(error) = fill_one(&overlay, id).await else { continue };
            if error.kind == ErrorKind::Gone {
                // The edits were discarded or published completely.
                continue;
            }
            is_left = true;
            // Logged once per file, since it is retried again and again.
            if told.insert(id) {
                tell(&overlay, &error);
            }
        }
        if is_left {
            let _ = tokio::time::timeout(RETRY, filler.notified()).await;
        } else {
            filler.notified().await;
        }
    }
}

fn tell(overlay: &Weak<Overlay>, error: &Error) {
    let Some(overlay) = overlay.upgrade() else { return };
    let tag_key = overlay.tag_key();
    let tag = format!("{}:{}", tag_key.repository, tag_key.tag);
    tracing::warn!(
        "a partly written file of {tag} still depends on its original, since the rest cannot be copied into the state directory yet: {error}"
    );
}

/// Fills in one file. `false`: nothing to do, or the file is no longer needed. Holds the overlay only between waits.
pub(in crate::view::overlay) async fn fill_one(overlay: &Weak<Overlay>, id: DataId) -> Result<bool, Error> {
    let layered = {
        let Some(overlay) = overlay.upgrade() else { return Ok(false) };
        // A file that only lies below another one is not needed once that one is filled in.
        if overlay.upper().is_below_only(id)? {
            return Ok(false);
        }
        match overlay.upper().data(id) {
            Ok(data) => Arc::new(Layered::new(data)),
            Err(error) if error.kind == ErrorKind::Gone => return Ok(false),
            Err(error) => return Err(error),
        }
    };
    fill_whole(overlay, &layered).await
}

/// Fills in a whole file.
pub(in crate::view::overlay) async fn fill_whole(overlay: &Weak<Overlay>, layered: &Arc<Layered>) -> Result<bool, Error> {
    loop {
        if layered.data.is_whole()? {
            return Ok(false);
        }
        let (missing, spoiled) = layered.data.begin_filling()?;
        if !layered.data.has_room(missing) {
            return Err(Error::new(ErrorKind::NoSpace, format!("not enough space for {missing} bytes")));
        }
        let mut at = 0;
        while let Some(gap) = layered.data.gap(at)? {
            at = gap.end.min((gap.start / CHUNK + 1).saturating_mul(CHUNK));
            // At most CHUNK, which fits.
            let length = u32::try_from(at - gap.start).unwrap_or(u32::MAX);
            let Some((plan, blobs)) = plan(overlay, layered, gap.start, length)? else { return Ok(false) };
            let bytes = plan.read(&blobs).await?;
            let layered = Arc::clone(layered);
            blocking(move || layered.data.fill(gap.start, &bytes)).await?;
        }
        let layered = Arc::clone(layered);
        if blocking(move || layered.data.end_filling(spoiled)).await? {
            return Ok(true);
        }
    }
}

/// Where the bytes of a range are; `None` once they are no longer needed.
fn plan(overlay: &Weak<Overlay>, layered: &Layered, offset: u64, length: u32) -> Result<Option<(Plan, Blobs)>, Error> {
    let Some(overlay) = overlay.upgrade() else { return Ok(None) };
    // Removed, or replaced by a file over it, since filling began.
    if overlay.upper().is_below_only(layered.data.id())? {
        return Ok(None);
    }
    Ok(Some((layered.plan(&overlay.trees, offset, length)?, overlay.blobs.clone())))
}
