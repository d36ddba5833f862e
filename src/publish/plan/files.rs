//! The plan of the files dialect: a large file alone, everything else in groups.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::groups::{Assigner, Place, Totals};
use super::identity::{LayerIdentity, archived};
use super::{LayerPlan, Plan, Selector};
use crate::artifact::Kind;
use crate::layer::{self, PackEntry, Packing};
use crate::publish::Error;
use crate::publish::compare::FirstNames;
use crate::publish::snapshot::{Entries, Snapshot};
use crate::view::FrozenEntry;

/// Files whose SHA-256 are computed at a time.
const HASHED: usize = 8;
/// Smaller files are not worth a task.
const TASK: u64 = 64 << 10;
/// Longest title, as every reader takes it for a path.
const TITLE: usize = 4095;

struct Draft {
    identity: LayerIdentity,
    plan: LayerPlan,
}

impl Draft {
    fn new(packing: Packing, title: Option<String>) -> Self {
        let plan = LayerPlan { identity: [0; 32], packing, title, entries: 0, bytes: 0, behind: Vec::new() };
        Self { identity: LayerIdentity::new(packing), plan }
    }

    fn add(&mut self, entry: &PackEntry, sha256: Option<[u8; 32]>) {
        self.identity.add(entry, sha256);
        self.plan.entries += 1;
        self.plan.bytes = self.plan.bytes.saturating_add(entry.size);
    }

    fn finish(mut self) -> LayerPlan {
        for entry in &self.plan.behind {
            self.identity.add(entry, None);
        }
        self.plan.identity = self.identity.finish();
        self.plan
    }
}

/// Plans the layers of a tree with these totals.
pub(in crate::publish) async fn plan(snapshot: &Arc<dyn Snapshot>, totals: Totals) -> Result<Plan, Error> {
    let mut assigner = Assigner::new(&totals);
    let mut layers: Vec<Draft> = Vec::new();
    let mut hashed = hashed(snapshot);
    while let Some((entry, sha256)) = hashed.try_next().await? {
        match assigner.place(&entry) {
            Place::Link { group, first } => {
                if let Some(layer) = layers.get_mut(group as usize) {
                    layer.plan.behind.push(archived(&entry, Some(&first)));
                }
            }
            Place::Alone(_) => {
                let raw = is_raw(&**snapshot, &entry).await?;
                let mut layer = Draft::new(if raw.is_some() { Packing::Raw } else { Packing::GzipTar }, raw);
                layer.add(&archived(&entry, None), sha256);
                layers.push(layer);
            }
            Place::Group(group) => {
                if group as usize >= layers.len() {
                    layers.push(Draft::new(Packing::GzipTar, None));
                }
                if let Some(layer) = layers.get_mut(group as usize) {
                    layer.add(&archived(&entry, None), sha256);
                }
            }
        }
    }
    Ok(Plan { selector: Selector::Groups(totals), layers: layers.into_iter().map(Draft::finish).collect() })
}

/// The entries of a snapshot in order, with the SHA-256 of each regular file at its first name.
pub(in crate::publish) fn hashed(
    snapshot: &Arc<dyn Snapshot>,
) -> stream::BoxStream<'static, Result<(FrozenEntry, Option<[u8; 32]>), Error>> {
    let reading = Arc::clone(snapshot);
    let state = (Entries::of(Arc::clone(snapshot)), FirstNames::default());
    let entries = stream::try_unfold(state, |(mut entries, mut names)| async move {
        let next = entries.next().await?;
        Ok::<_, Error>(next.map(|entry| {
            let wanted = entry.kind == Kind::File && names.of(&entry).is_none();
            ((entry, wanted), (entries, names))
        }))
    });
    let jobs = entries.map_ok(move |(entry, wanted)| {
        let reading = Arc::clone(&reading);
        async move {
            if !wanted {
                return Ok((entry, None));
            }
            if entry.size < TASK {
                let sha256 = reading.sha256(&entry).await?;
                return Ok((entry, Some(sha256)));
            }
            let task = tokio::spawn(async move {
                let sha256 = reading.sha256(&entry).await;
                (entry, sha256)
            });
            let (entry, sha256) = AbortOnDrop(task).await?;
            Ok((entry, Some(sha256?)))
        }
    });
    jobs.try_buffered(HASHED).boxed()
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map_err(|error| Error::other(format!("hashing a file: {error}")))
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The title, if a large file is stored as it is: a plain file that gains nothing from compression and whose path can be a title.
async fn is_raw(snapshot: &dyn Snapshot, entry: &FrozenEntry) -> Result<Option<String>, Error> {
    let is_plain = entry.mode.is_none_or(|mode| mode == 0o644) && entry.xattrs.is_empty() && entry.links <= 1;
    let Some(title) = title(&entry.path).filter(|_| is_plain) else { return Ok(None) };
    let reader = snapshot.open(entry).await?;
    let mut sample = Vec::new();
    for range in layer::sample_ranges(entry.size) {
        let length = u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX);
        sample.extend_from_slice(&reader.read(range.start, length).await?);
    }
    Ok((!layer::compressible(&sample)?).then_some(title))
}

/// A path as a title, where every reader takes it for that very path.
pub(in crate::publish) fn title(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    let is_path = !text.is_empty() && text.len() <= TITLE && !text.contains('\\') && !text.chars().any(char::is_control);
    is_path.then(|| text.to_owned())
}
