//! Maps of sparse files: where the stored bytes belong in the file.

use super::super::Extent;

/// A stored piece of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Lays out the stored bytes, which start at `stream` and are `stored` long, by a map. `None` unless the pieces ascend, stay inside the file and cover
/// exactly the stored bytes.
pub(super) fn extents(pieces: &[Piece], size: u64, stream: u64, stored: u64) -> Option<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    let (mut file, mut taken) = (0, 0);
    for piece in pieces {
        let end = piece.offset.checked_add(piece.length).filter(|end| *end <= size)?;
        if piece.offset < file {
            return None;
        }
        if piece.length > 0 {
            match extents.last_mut() {
                Some(last) if last.file + last.length == piece.offset => last.length += piece.length,
                _ => extents.push(Extent { file: piece.offset, stream: stream.checked_add(taken)?, length: piece.length }),
            }
        }
        file = end;
        taken = u64::checked_add(taken, piece.length).filter(|taken| *taken <= stored)?;
    }
    (taken == stored).then_some(extents)
}

/// A decimal number of bytes. Leading zeros are ignored, as in other readers.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for byte in text {
        match byte {
            b'0'..=b'9' => value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
            _ => return None,
        }
    }
    Some(value).filter(|value| *value <= i64::MAX as u64)
}

/// Converts alternating offsets and lengths to pieces.
pub(super) fn pairs(numbers: &[u64]) -> Option<Vec<Piece>> {
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(pairs.map(|pair| Piece { offset: pair[0], length: pair[1] }).collect())
}

/// The map before the content, in format 1.0: decimal lines, the first with the number of pieces.
#[derive(Default)]
pub(super) struct LeadingMap {
    numbers: Vec<u64>,
    /// Digits of a line that continues in the next block.
    line: Vec<u8>,
    length: u64,
}

impl LeadingMap {
    /// Bytes added so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds a block. `Ok(None)` while lines are missing; anything after the last line in its block is padding.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<Option<Vec<Piece>>, ()> {
        self.length += block.len() as u64;
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 19 {
                    return Err(());
                }
                continue;
            }
            self.numbers.push(decimal(&self.line).ok_or(())?);
            self.line.clear();
            let wanted = self.numbers.first().and_then(|count| count.checked_mul(2)).ok_or(())?;
            if self.numbers.len() as u64 - 1 == wanted {
                return pairs(self.numbers.get(1..).unwrap_or_default()).map(Some).ok_or(());
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, length: u64) -> Piece {
        Piece { offset, length }
    }

    #[test]
    fn a_sparse_map_must_ascend_fit_and_cover_all_stored_bytes() {
        let extent = |file, stream, length| Extent { file, stream, length };
        assert_eq!(
            extents(&[piece(0, 5), piece(5, 5), piece(20, 1), piece(30, 0)], 30, 1000, 11),
            Some(vec![extent(0, 1000, 10), extent(20, 1010, 1)])
        );
        assert_eq!(extents(&[piece(5, 5), piece(0, 5)], 30, 0, 10), None);
        assert_eq!(extents(&[piece(0, 5), piece(4, 5)], 30, 0, 10), None);
        assert_eq!(extents(&[piece(0, 31)], 30, 0, 31), None);
        assert_eq!(extents(&[piece(0, 5)], 30, 0, 6), None);
        assert_eq!(extents(&[piece(u64::MAX, 5)], u64::MAX, 0, 5), None);
    }

    #[test]
    fn a_leading_sparse_map_is_parsed_once_complete() {
        let read = |blocks: &[&[u8]]| {
            let mut map = LeadingMap::default();
            blocks.iter().map(|block| map.add(block)).last().unwrap()
        };
        assert_eq!(read(&[b"2\n0\n5\n512\n7\n\0\0"]), Ok(Some(vec![piece(0, 5), piece(512, 7)])));
        assert_eq!(read(&[b"2\n0\n5\n51"]), Ok(None));
        assert_eq!(read(&[b"2\n0\n5\n51", b"2\n7\n"]), Ok(Some(vec![piece(0, 5), piece(512, 7)])));
        assert_eq!(read(&[b"0\n\0"]), Ok(Some(vec![])));
        assert_eq!(read(&[b"2\nx\n"]), Err(()));
        assert_eq!(read(&[&[0; 512]]), Err(()));
        assert_eq!(read(&[b"9223372036854775807\n0\n"]), Ok(None));
    }
}
