//! Which spans of a stream are present, found out without using it.

use std::sync::Arc;

use super::layout::Layout;
use super::shared::{Shared, failed};
use super::stream::{OpenStreams, Stream};
use super::table::Table;
use crate::error::Error;
use crate::oci::Digest;

/// The present spans of a stream. Looking at them changes no age.
pub struct Present(Source);

enum Source {
    /// This process has it open.
    Open(Arc<Stream>),
    Unopened(Table),
}

impl Present {
    pub(super) fn find(open: &OpenStreams, blob: &Digest, layout: &Layout, is_sealed: bool) -> Result<Option<Self>, Error> {
        let layout = layout.stored_as(is_sealed)?;
        let name = Shared::stream_name(blob, is_sealed, &layout.fingerprint());
        if let Some(stream) = open.get(&name) {
            return Ok(Some(Self(Source::Open(stream))));
        }
        let directory = open.shared.stream_directory(&name);
        let table = Table::open(&directory).map_err(failed("open", &directory))?;
        Ok(table.filter(|table| !table.dead() && *table.layout() == layout).map(|table| Self(Source::Unopened(table))))
    }

    /// Whether a span is present, proved or not.
    pub fn has(&self, span: u32) -> bool {
        let table = match &self.0 {
            Source::Open(stream) => &stream.table,
            Source::Unopened(table) => table,
        };
        table.state(span).present()
    }
}
