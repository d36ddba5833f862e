//! Builds the bytes of a tree from a plan and the indexes of its layers. Pure.
//!
//! Archives are merged first, in order; then the files claim their paths. A file whose path is taken by other bytes gets a name with its digest, so
//! no title makes data vanish.

use super::dialect::{Shape, Step, Wanted};
use super::merge::{Merge, MergeSource, Occupied, Placing, RawFile, Shown};
use crate::content::Guide;
use crate::error::Error;
use crate::layer::{Codec, LayerIndex};
use crate::sys::array::{Array, Scratch};

/// A tree and its warnings.
pub(super) struct Composed {
    /// Bytes of the tree.
    pub bytes: Array<u8>,
    /// Why entries were dropped.
    pub warnings: Vec<String>,
}

/// Builds the tree in scratch space. `indexes` has the index of every unpackable archive; `directories` are created first.
pub(super) fn compose<'a>(
    steps: &[Step],
    indexes: &'a [Option<LayerIndex>],
    directories: &[Vec<u8>],
    scratch: &Scratch,
) -> Result<Composed, Error> {
    let is_referred = |step: &Step| step.guide.as_ref().is_some_and(Guide::is_referred);
    let shown =
        |(step, index): (&Step, &'a Option<LayerIndex>)| index.as_ref().map(|index| Shown { index, is_referred: is_referred(step) });
    let layers: Vec<Option<Shown<'_>>> = steps.iter().zip(indexes).map(shown).collect();
    let mut merge = Merge::new(scratch)?;
    for directory in directories {
        merge.directory(directory)?;
    }
    let index_of = |number: usize| layers.get(number).and_then(Option::as_ref);
    for (number, step) in steps.iter().enumerate() {
        if let (Shape::Archive { placing, .. }, Some(index)) = (&step.shape, index_of(number)) {
            let estargz = placing.estargz && index.index.codec() == Codec::Gzip;
            for warning in index.index.warnings() {
                merge.warn(|| format!("layer {}: {warning}", step.descriptor.digest.short()));
            }
            merge.layer(number as u32, index, &Placing { estargz, ..placing.clone() })?;
        }
    }
    let nothing = RawFile::default();
    let mut sources = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate() {
        sources.push(match (&step.shape, index_of(number)) {
            (Shape::Archive { placing, .. }, Some(index)) => MergeSource::Layer { entries: index, image: placing.whiteouts },
            (Shape::Archive { instead: Some(wanted), .. } | Shape::File(wanted), _) => MergeSource::Raw(&wanted.raw),
            (Shape::Archive { instead: None, .. }, None) => MergeSource::Raw(&nothing),
        });
    }
    for (number, step) in steps.iter().enumerate() {
        if let (Shape::File(wanted) | Shape::Archive { instead: Some(wanted), .. }, None) = (&step.shape, index_of(number)) {
            put(&mut merge, &sources, number, step, wanted)?;
        }
    }
    let warnings = merge.warnings().to_vec();
    Ok(Composed { bytes: merge.encode(&sources)?, warnings })
}

fn put(merge: &mut Merge, sources: &[MergeSource<'_>], number: usize, step: &Step, wanted: &Wanted) -> Result<(), Error> {
    for (attempt, place) in wanted.title.places(&wanted.base, &step.descriptor.digest).enumerate() {
        match merge.occupied(&place) {
            Occupied::Free => {
                if attempt > 0 {
                    merge.warn(|| format!("blob {} is shown as {}", step.descriptor.digest, place.escape_ascii()));
                }
                return merge.raw(number as u32, &place);
            }
            Occupied::File(source, entry) if is_same(sources.get(source as usize), entry, &wanted.raw) => return Ok(()),
            Occupied::File(..) | Occupied::Directory | Occupied::Blocked => {}
        }
    }
    Ok(())
}

/// Whether the bytes at a path are those of the file that claims it.
fn is_same(source: Option<&MergeSource<'_>>, entry: u32, raw: &RawFile) -> bool {
    let there = match source {
        Some(MergeSource::Raw(other)) => other.sha256,
        Some(MergeSource::Layer { entries, .. }) => entries.entry(entry).and_then(|entry| entry.sha256),
        Some(MergeSource::Bare) | None => None,
    };
    there.is_some() && there == raw.sha256
}
