//! From a plan to layers in the registry: known layers are reused, packed ones found, the rest packed and sent in parallel.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};
use tokio::sync::Semaphore;

use super::jobs::{Job, jobs};
use super::layer::{self, How};
use super::made::{Made, RemoteLayer};
use super::sealed::Sealed;
use super::store::{Ready, Store};
use crate::artifact::Artifacts;
use crate::blocking::blocking;
use crate::content::{Budget, Use};
use crate::error::Error;
use crate::oci::{Descriptor, Repository};
use crate::publish::plan::identity::Identity;
use crate::publish::plan::layers::{LayerPlan, Plan};
use crate::publish::progress::Progress;
use crate::publish::push::upload::{BlobBytes, Uploader};
use crate::view::snapshot::Snapshot;

/// Layers packed concurrently.
const PACKED: usize = 4;

/// Packs and sends.
pub(in crate::publish) struct Producer {
    pub snapshot: Arc<dyn Snapshot>,
    pub store: Store,
    pub budget: Budget,
    /// Their cache makes room for packed layers.
    pub artifacts: Artifacts,
    /// `None` in a dry run.
    pub uploader: Option<Arc<Uploader>>,
    pub progress: Arc<Progress>,
    pub sealed: Option<Sealed>,
    /// Whether to attach indexes.
    pub with_index: bool,
    /// Bytes of a span.
    pub span: NonZeroUsize,
}

impl Producer {
    /// Produces the layers of a plan, in its order.
    pub async fn produce(&self, plan: Plan, remote: &HashMap<Identity, RemoteLayer>) -> Result<Vec<Made>, Error> {
        let mut made: Vec<Option<Made>> = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            made.push(match remote.get(&layer.identity) {
                Some(remote) if self.still_there(remote).await? => Some(Made::Remote(remote.clone())),
                _ => self.found(layer).await?.map(Made::Packed),
            });
        }
        let wanted: Vec<bool> = made.iter().map(Option::is_none).collect();
        let bytes = plan.layers.iter().zip(&wanted).filter(|(_, wanted)| **wanted).map(|(layer, _)| layer.bytes).sum();
        self.progress.expect_packed(bytes);
        let found = made.iter().flatten().filter_map(|made| match made {
            Made::Packed(ready) => Some(ready.clone()),
            Made::Remote(_) => None,
        });
        let found: Vec<Ready> = found.collect();
        let sending =
            stream::iter(found.into_iter().map(Ok)).try_for_each_concurrent(None, |ready| async move { self.send(&ready).await }).boxed();
        let (packed, ()) = future::try_join(self.pack(Arc::new(plan), &wanted), sending).await?;
        for (number, ready) in packed {
            if let Some(place) = made.get_mut(number) {
                *place = Some(Made::Packed(ready));
            }
        }
        made.into_iter().map(|made| made.ok_or_else(|| Error::other("a planned layer was not packed"))).collect()
    }

    /// Whether a known layer may be referred to: the tag has it, or the repository still does.
    async fn still_there(&self, remote: &RemoteLayer) -> Result<bool, Error> {
        let Some(uploader) = &self.uploader else { return Ok(true) };
        let blobs = [Some(&remote.layer), remote.index.as_ref()];
        if let Some(repository) = &remote.repository {
            for blob in blobs.into_iter().flatten() {
                if !uploader.is_there(blob, Some(repository)).await? {
                    return Ok(false);
                }
            }
        }
        blobs.into_iter().flatten().for_each(|blob| uploader.reused(blob));
        Ok(true)
    }

    async fn found(&self, layer: &LayerPlan) -> Result<Option<Ready>, Error> {
        let (store, identity) = (self.store.clone(), layer.identity);
        let found = blocking(move || store.find(&identity)).await?;
        let Some(ready) = found else { return Ok(None) };
        if let Some(sealed) = &self.sealed
            && !sealed.opens(&ready.path).await?
        {
            return Ok(None);
        }
        Ok(Some(Ready { room: self.artifacts.room(ready.blob.1).await, ..ready }))
    }

    async fn pack(&self, plan: Arc<Plan>, wanted: &[bool]) -> Result<Vec<(usize, Ready)>, Error> {
        let count = wanted.iter().filter(|wanted| **wanted).count();
        if count == 0 {
            return Ok(Vec::new());
        }
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // The rest of the share is for uploads, each of which holds a piece or two.
        let memory = self.budget.share(Use::Packing) / 8 * 7;
        let (at_a_time, workers) =
            side_by_side(count.min(PACKED).min(cores.max(2)), cores, |workers| memory / layer::memory(workers, self.span));
        let permits = Arc::new(Semaphore::new(at_a_time));
        let jobs = jobs(&self.snapshot, &plan, wanted.to_vec());
        // A job is taken only when it can start, so that no more than these wait with their names.
        let jobs = stream::unfold((jobs, permits), |(mut jobs, permits)| async move {
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            let job = jobs.next().await?;
            Some((job.map(|job| (job, permit)), (jobs, permits)))
        });
        let made = jobs.map_ok(|(job, permit)| {
            let plan = Arc::clone(&plan);
            async move {
                let number = job.number;
                let layer = plan.layers.get(number).ok_or_else(|| Error::other("a layer is not planned"))?;
                let ready = self.pack_one(layer, job, workers).await?;
                drop(permit);
                self.send(&ready).await?;
                Ok((number, ready))
            }
        });
        made.try_buffer_unordered(at_a_time + PACKED * 2).try_collect().boxed().await
    }

    async fn pack_one(&self, layer: &LayerPlan, job: Job, workers: usize) -> Result<Ready, Error> {
        let progress = Arc::clone(&self.progress);
        let how = How {
            snapshot: &self.snapshot,
            store: &self.store,
            workers,
            sealed: self.sealed.clone(),
            with_index: self.with_index,
            span: self.span,
            read: &self.progress.read,
            budget: &self.budget,
            told: &move || progress.packed(),
        };
        // Reserved before the first byte is written; packed, it is hardly larger.
        let room = self.artifacts.room(layer.bytes).await;
        let ready = layer::pack(layer, job, how).await?;
        Ok(Ready { room, ..ready })
    }

    /// Sends a packed layer and its index.
    async fn send(&self, ready: &Ready) -> Result<(), Error> {
        let Some(uploader) = &self.uploader else { return Ok(()) };
        let layer = Descriptor::new("application/octet-stream", ready.blob.0, ready.blob.1);
        uploader.send(&layer, &BlobBytes::File(ready.path.clone())).await?;
        if let Some((digest, size, path)) = &ready.attached_index {
            let index = Descriptor::new("application/octet-stream", *digest, *size);
            uploader.send(&index, &BlobBytes::File(path.clone())).await?;
        }
        Ok(())
    }
}

/// How many layers to pack in parallel, and with how many threads each, so that memory suffices. Twice as many threads as cores, since a layer that
/// begins or ends leaves its own idle.
fn side_by_side(layers: usize, cores: usize, fitting: impl Fn(usize) -> u64) -> (usize, usize) {
    let layers = layers.min(usize::try_from(fitting(1)).unwrap_or(usize::MAX)).max(1);
    let mut workers = (2 * cores).div_ceil(layers).clamp(1, cores.max(1));
    while workers > 1 && fitting(workers) < layers as u64 {
        workers -= 1;
    }
    (layers, workers)
}

/// Registers packed layers with the readers of this process, so that no index has to be fetched.
pub(in crate::publish) async fn adopt(artifacts: &Artifacts, repository: &Repository, made: &[Made]) -> Result<(), Error> {
    for made in made {
        let Made::Packed(ready) = made else { continue };
        if let Some(sealed) = &ready.sealed {
            let (sealed, index) = &**sealed;
            sealed.adopt(repository, ready.blob, index).await;
            continue;
        }
        let reading = ready.clone();
        let resources = artifacts.resources(false);
        let index = blocking(move || reading.index(&resources)).await?;
        if let Some(index) = index {
            artifacts.adopt(&index, ready.attached_index.as_ref().map(|(digest, ..)| digest)).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_layers_before_threads() {
        let fitting = |memory: u64| move |workers: usize| memory / layer::memory(workers, crate::layer::SPAN);
        assert_eq!(side_by_side(4, 64, fitting(0)), (1, 1));
        assert_eq!(side_by_side(4, 8, fitting(u64::MAX)), (4, 4));
        assert_eq!(side_by_side(1, 8, fitting(u64::MAX)), (1, 8));
        for memory in [32 << 20, 63 << 20, 1 << 30] {
            let (layers, workers) = side_by_side(4, 64, fitting(memory));
            assert!(layers as u64 * layer::memory(workers, crate::layer::SPAN) <= memory, "{layers} {workers}");
        }
    }
}
