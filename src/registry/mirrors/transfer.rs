//! A range of a blob from several sources: if one fails, the next continues.

use std::ops::Range;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};

use super::candidate::{self, Candidate};
use crate::error::Error;
use crate::oci::{Descriptor, Repository};
use crate::registry::{BlobStream, Pull};

/// The rest of a blob, from the current source and those after it.
pub(super) struct Transfer {
    current: (Candidate, BlobStream),
    others: std::vec::IntoIter<Candidate>,
    descriptor: Descriptor,
    range: Range<u64>,
}

impl Transfer {
    /// Opens the range at the first source that has it.
    pub(super) async fn open(candidates: Vec<Candidate>, descriptor: &Descriptor, range: Range<u64>) -> Result<Self, Error> {
        let mut others = candidates.into_iter();
        let current = Self::next(&mut others, descriptor, range.clone(), None).await?;
        Ok(Self { current, others, descriptor: descriptor.clone(), range })
    }

    async fn next(
        others: &mut std::vec::IntoIter<Candidate>,
        descriptor: &Descriptor,
        range: Range<u64>,
        failure: Option<Error>,
    ) -> Result<(Candidate, BlobStream), Error> {
        let ask = |pull: Arc<dyn Pull>, repository: Repository| -> BoxFuture<'static, _> {
            let (descriptor, range) = (descriptor.clone(), range.clone());
            Box::pin(async move { pull.blob(&repository, &descriptor, range).await })
        };
        candidate::first(others, failure, ask).await
    }

    /// One continuous stream: after a failure the next source continues where the last one ended. The reader checks the digest anyway.
    pub(super) fn stream(self) -> BlobStream {
        stream::try_unfold(self, |mut transfer| async move {
            loop {
                match transfer.current.1.next().await {
                    Some(Ok(piece)) => {
                        transfer.range.start += piece.len() as u64;
                        return Ok(Some((piece, transfer)));
                    }
                    None => return Ok(None),
                    Some(Err(error)) => {
                        let (range, failure) = (transfer.range.clone(), transfer.current.0.failed_after(None, error));
                        transfer.current = Self::next(&mut transfer.others, &transfer.descriptor, range, failure).await?;
                    }
                }
            }
        })
        .boxed()
    }
}
