//! How a view gets the edits of its tag: begun now, or handed to it before it is entered.
//!
//! The edits stay with the view for life, through every publish. This module does not know which tags have edits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Context, Key, Meaning, Overlay, Shown, View};
use crate::artifact::{Dialect, ViewMode};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::staging::{Binding, TagKey, Upper, Uppers};

/// Result of beginning edits of a tag.
pub enum Begun {
    /// Edits through this view.
    Edits(Arc<Overlay>),
    /// Edits exist already, which this view does not show.
    Found(Arc<Upper>),
}

/// Why edits were not begun.
enum Unbegun {
    Found(Arc<Upper>),
    Failed(Error),
}

impl From<Error> for Unbegun {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Creates an upper, replacing an empty one.
async fn make_upper(uppers: Arc<Uppers>, meaning: Meaning, tag_key: TagKey, binding: Binding) -> Result<Upper, Unbegun> {
    let made = blocking(move || match uppers.find(&tag_key)? {
        Some(upper) if !upper.remove_if_clean()? => Ok((upper, false)),
        _ => meaning.begin(&uppers, &tag_key, binding).map(|upper| (upper, true)),
    });
    match made.await? {
        (upper, true) => Ok(upper),
        (upper, false) => Err(Unbegun::Found(Arc::new(upper))),
    }
}

/// Takes back the lock of a tag that was released when nothing was left to publish.
async fn reclaim(uppers: &Arc<Uppers>, tag_key: TagKey, overlay: &Arc<Overlay>) -> Result<Begun, Error> {
    if !overlay.is_released() {
        return Ok(Begun::Edits(Arc::clone(overlay)));
    }
    let (uppers, ours) = (Arc::clone(uppers), Arc::clone(overlay));
    let reclaimed = blocking(move || match ours.reclaim_tag() {
        // Left by a mount that no longer runs.
        Err(error) if error.kind == ErrorKind::Exists => match uppers.find(&tag_key)? {
            Some(upper) if !upper.remove_if_clean()? => Ok(Begun::Found(Arc::new(upper))),
            _ => ours.reclaim_tag().map(|()| Begun::Edits(ours)),
        },
        reclaimed => reclaimed.map(|()| Begun::Edits(ours)),
    });
    reclaimed.await
}

impl View {
    /// The edits of the tag, if this view has any.
    pub fn overlay(&self) -> Option<&Arc<Overlay>> {
        self.overlay.get()
    }

    /// The same, after waiting for edits that are just being begun.
    pub async fn begun(&self) -> Option<&Arc<Overlay>> {
        self.overlay.get_or_try_init(|| std::future::ready(Err(()))).await.ok()
    }

    /// Hands the view the staged edits of its tag; it shows them once it is entered.
    pub fn give(&self, upper: Arc<Upper>) {
        *self.given.lock() = Some(upper);
    }

    /// The upper handed over and not shown yet.
    pub fn given(&self) -> Option<Arc<Upper>> {
        self.given.lock().clone()
    }

    /// Takes back edits handed over and not shown yet.
    pub fn take_given(&self) -> Option<Arc<Upper>> {
        self.given.lock().take()
    }

    /// The digests that its edits are bound to, shown or not; `None` without edits.
    pub fn binding(&self) -> Option<Binding> {
        self.overlay().map(|overlay| overlay.binding()).or_else(|| self.given().map(|upper| upper.binding()))
    }

    /// The meaning of its edits, shown or not; `None` without edits, or if it was not recorded.
    ///
    /// # Errors
    /// As [`Meaning::of`].
    pub fn meaning(&self) -> Result<Option<Meaning>, Error> {
        match (self.overlay(), self.given()) {
            (Some(overlay), _) => Meaning::of(overlay.upper()),
            (None, Some(upper)) => Meaning::of(&upper),
            (None, None) => Ok(None),
        }
    }

    /// Makes every use of the view fail from now on: another view has its content.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether the view was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The key under which edits of this view are staged; `None` unless it shows a tag.
    pub fn tag_key(&self, context: &Context) -> Option<TagKey> {
        match self.key() {
            Key::Tag(repository, tag) => Some(TagKey {
                origin: context.artifacts.origin().to_owned(),
                authority: context.authority.to_string(),
                repository: repository.to_string(),
                tag: tag.to_string(),
            }),
            _ => None,
        }
    }

    /// The edits of the tag, begun now if it has none: takes the tag's lock.
    ///
    /// # Errors
    /// `ReadOnly` unless it is a tag, for an index without a matching platform, and if nothing is writable; `Busy` if another
    /// process edits the tag; errors of the registry and the disk.
    pub async fn edit(&self, context: &Context) -> Result<Begun, Error> {
        let (Some(uppers), Some(tag_key)) = (&context.staging, self.tag_key(context)) else {
            return Err(Error::new(ErrorKind::ReadOnly, "only the files of a tag can be changed"));
        };
        if let Some(overlay) = self.overlay() {
            return reclaim(uppers, tag_key, overlay).await;
        }
        let under = match self.enter(context).await? {
            Shown::Tree(artifact) if artifact.dialect == Dialect::Members => {
                return Err(Error::new(ErrorKind::ReadOnly, "an image index without a matching platform cannot be changed"));
            }
            Shown::Tree(_) if context.meaning.view != ViewMode::Merged => {
                return Err(Error::new(ErrorKind::ReadOnly, "layers and blobs shown as stored cannot be changed"));
            }
            Shown::Tree(artifact) => artifact.manifest.digest,
            Shown::Metadata(_) | Shown::New => return Err(Error::new(ErrorKind::ReadOnly, "only the files of a tag can be changed")),
        };
        let binding = Binding { under: Some(under), expected: Some(under), deleted: false };
        let begin = async {
            let made = make_upper(Arc::clone(uppers), context.meaning.clone(), tag_key, binding).await?;
            let overlay = Overlay::open(context, made).await.map_err(Unbegun::Failed)?;
            overlay.share_pins(&self.pins);
            overlay.keep_filling();
            Ok(overlay)
        };
        match self.overlay.get_or_try_init(|| begin).await {
            Ok(overlay) => Ok(Begun::Edits(Arc::clone(overlay))),
            Err(Unbegun::Found(upper)) => Ok(Begun::Found(upper)),
            Err(Unbegun::Failed(error)) => Err(error),
        }
    }

    /// Opens the overlay of edits handed over. They stay available until shown: after a failure, or if nobody waits any more,
    /// the next attempt must find them, or it would show the tag without them.
    pub(super) async fn bind_given(&self, context: &Context) -> Result<Option<Shown>, Error> {
        let Some(upper) = self.given() else { return Ok(None) };
        let shown = self.lay(context, &upper).await?;
        self.take_given();
        Ok(Some(shown))
    }

    async fn lay(&self, context: &Context, upper: &Arc<Upper>) -> Result<Shown, Error> {
        let context = &context.of_upper(upper)?;
        let shown = match upper.binding().under {
            Some(digest) => {
                let artifacts = &context.artifacts;
                Shown::Tree(artifacts.artifact(self.repository(), &digest, context.meaning.view, self.strict(context)).await?)
            }
            None => Shown::New,
        };
        let overlay = Overlay::open(context, Arc::clone(upper)).await?;
        overlay.share_pins(&self.pins);
        overlay.keep_filling();
        // The view was not entered before, so it has no edits yet.
        let _ = self.overlay.set(overlay);
        Ok(shown)
    }
}
