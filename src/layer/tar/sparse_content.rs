//! The walk through sparse files: from the maps of their pieces to their content.

use super::entry::Pending;
use super::header::{self, BLOCK};
use super::sparse::{self, LeadingMap, Piece};
use super::{ArchiveState, Walker};
use crate::error::Error;
use crate::layer::build::Builder;

impl Walker {
    pub(super) fn old_sparse(
        &mut self,
        block: &[u8; BLOCK],
        mut pieces: Vec<Piece>,
        size: u64,
        stored: u64,
        pending: Box<Pending>,
        builder: &mut Builder,
    ) -> Result<(), Error> {
        let Some((further, more)) = header::old_sparse_extension(block) else {
            return Err(self.broken("the map of a sparse file is malformed"));
        };
        pieces.extend(further);
        if pieces.len() * size_of::<Piece>() > builder.limits().header_bytes as usize {
            return Err(self.broken("the map of a sparse file is too long"));
        }
        if more {
            self.state = ArchiveState::OldSparse { pieces, size, stored, pending };
            return Ok(());
        }
        self.begin_sparse(pending, &pieces, size, stored, self.position + BLOCK as u64, builder)
    }

    pub(super) fn leading_map(
        &mut self,
        block: &[u8; BLOCK],
        mut map: LeadingMap,
        size: u64,
        stored: u64,
        pending: Box<Pending>,
        builder: &mut Builder,
    ) -> Result<(), Error> {
        let pieces = map.add(block).map_err(|()| self.broken("the map of a sparse file is malformed"))?;
        if map.length() > u64::from(builder.limits().header_bytes) {
            return Err(self.broken("the map of a sparse file is too long"));
        }
        match pieces {
            Some(pieces) if map.length() <= stored => {
                self.begin_sparse(pending, &pieces, size, stored - map.length(), self.position + BLOCK as u64, builder)
            }
            None if map.length() + BLOCK as u64 <= stored => {
                self.state = ArchiveState::LeadingMap { map, size, stored, pending };
                Ok(())
            }
            _ => Err(self.broken("the map of a sparse file is truncated")),
        }
    }

    pub(super) fn begin_sparse(
        &mut self,
        mut pending: Box<Pending>,
        pieces: &[Piece],
        size: u64,
        stored: u64,
        stream: u64,
        builder: &mut Builder,
    ) -> Result<(), Error> {
        self.check_end(stored)?;
        let Some(extents) = sparse::extents(pieces, size, stream, stored) else {
            return Err(self.broken("the map of a sparse file does not fit the file"));
        };
        pending.pieces(extents, size, &mut self.hole_budget);
        self.begin_content(pending, stored, builder)
    }
}
