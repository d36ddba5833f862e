//! How a tag comes to its edits: begun now, or given to the view before it is entered.
//!
//! The edits stay with the view for its whole life, through every publish. Which tag has any is not known here.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{Context, Error, Key, Overlay, Shown, View};
use crate::artifact::{Dialect, ViewMode};
use crate::error::ErrorKind;
use crate::staging::{Binding, Subject, Upper};

impl View {
    /// The edits of the tag, if it has any here.
    pub fn overlay(&self) -> Option<&Arc<Overlay>> {
        self.overlay.get()
    }

    /// Gives the view what is staged for its tag; it shows that once it is entered.
    pub fn give(&self, upper: Upper) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(upper);
    }

    /// Makes every use of the view fail from now on: what it showed belongs to another one.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether the view was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Under which name edits of this view are staged; `None` for what is no tag.
    pub fn subject(&self, context: &Context) -> Option<Subject> {
        match self.key() {
            Key::Tag(repository, tag) => Some(Subject {
                origin: context.artifacts.origin().to_owned(),
                authority: context.authority.to_string(),
                repository: repository.to_string(),
                tag: tag.to_string(),
            }),
            _ => None,
        }
    }

    /// The edits of the tag, begun now if there are none: takes the tag's lock.
    ///
    /// # Errors
    /// `ReadOnly` for what is no tag, for an index of which no platform is shown and where nothing can be written; `Busy` where another
    /// process edits the tag.
    pub async fn edit(&self, context: &Context) -> Result<Arc<Overlay>, Error> {
        if let Some(overlay) = self.overlay() {
            return Ok(Arc::clone(overlay));
        }
        let (Some(uppers), Some(subject)) = (&context.staging, self.subject(context)) else {
            return Err(Error::new(ErrorKind::ReadOnly, "only the files of a tag can be changed"));
        };
        let under = match self.enter(context).await? {
            Shown::Tree(artifact) if artifact.dialect == Dialect::Members => {
                return Err(Error::new(ErrorKind::ReadOnly, "an image index without a matching platform cannot be changed"));
            }
            Shown::Tree(_) if context.mode != ViewMode::Merged => {
                return Err(Error::new(ErrorKind::ReadOnly, "layers and blobs shown as they are stored cannot be changed"));
            }
            Shown::Tree(artifact) => artifact.manifest.digest,
            Shown::Metadata(_) | Shown::New => return Err(Error::new(ErrorKind::ReadOnly, "only the files of a tag can be changed")),
        };
        let begin = async {
            let uppers = Arc::clone(uppers);
            let binding = Binding { under: Some(under), expected: Some(under), deleted: false };
            let created = tokio::task::spawn_blocking(move || uppers.create(&subject, binding)).await;
            let upper = created.map_err(|error| Error::new(ErrorKind::Other, format!("cannot stage: {error}")))??;
            Overlay::open(context, upper).await
        };
        self.overlay.get_or_try_init(|| begin).await.map(Arc::clone)
    }

    /// Lays what was given over the tree that it is bound to. After a failure it is there for the next try.
    pub(super) async fn bind_given(&self, context: &Context) -> Result<Option<Shown>, Error> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(upper) = given else { return Ok(None) };
        let (subject, binding) = (upper.subject(), upper.binding());
        match self.lay(context, upper, binding).await {
            Ok(shown) => Ok(Some(shown)),
            Err(error) => {
                if let Some(uppers) = &context.staging
                    && let Ok(Some(upper)) = uppers.find(&subject)
                {
                    self.give(upper);
                }
                Err(error)
            }
        }
    }

    async fn lay(&self, context: &Context, upper: Upper, binding: Binding) -> Result<Shown, Error> {
        let overlay = Overlay::open(context, upper).await?;
        let shown = match binding.under {
            Some(digest) => {
                let artifacts = &context.artifacts;
                Shown::Tree(artifacts.artifact(self.repository(), &digest, context.mode, self.strict(context)).await?)
            }
            None => Shown::New,
        };
        // The view was not entered before, so nobody else began edits of it.
        let _ = self.overlay.set(overlay);
        Ok(shown)
    }
}
