//! One 512-byte header block: checksum, format, numbers, names. Independent of earlier blocks.

use super::sparse::Piece;
use crate::error::Error;

/// Length of a block.
pub(super) const BLOCK: usize = 512;

/// Which fields after the first 257 bytes have a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFormat {
    /// None of them.
    V7,
    /// Device numbers and a prefix of 155 bytes.
    Ustar,
    /// Device numbers and a prefix of 131 bytes, times behind it.
    Star,
    /// Device numbers, and a map of old sparse files.
    Gnu,
}

/// A header block with a valid checksum.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// An unparseable number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadNumber;

impl<'a> Header<'a> {
    /// Verifies the checksum, unsigned or, as some old tools write it, signed.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Option<Self> {
        let header = Self(block);
        let claimed = number(header.field(148, 8)).ok()?;
        let (mut unsigned, mut signed) = (8 * i64::from(b' '), 8 * i64::from(b' '));
        for (at, byte) in block.iter().enumerate() {
            if !(148..156).contains(&at) {
                unsigned += i64::from(*byte);
                signed += i64::from(*byte as i8);
            }
        }
        (claimed == i128::from(unsigned) || claimed == i128::from(signed)).then_some(header)
    }

    fn field(&self, at: usize, length: usize) -> &'a [u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    pub(super) fn format(&self) -> HeaderFormat {
        match (self.field(257, 6), self.field(263, 2), self.field(508, 4)) {
            (b"ustar\0", _, b"tar\0") => HeaderFormat::Star,
            (b"ustar\0", _, _) => HeaderFormat::Ustar,
            (b"ustar ", b" \0", _) => HeaderFormat::Gnu,
            _ => HeaderFormat::V7,
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or(0)
    }

    /// Name with its prefix, not cleaned.
    pub(super) fn name(&self) -> Vec<u8> {
        let prefix = match self.format() {
            HeaderFormat::Ustar => text(self.field(345, 155)),
            HeaderFormat::Star => text(self.field(345, 131)),
            HeaderFormat::V7 | HeaderFormat::Gnu => &[],
        };
        let name = text(self.field(0, 100));
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i128, BadNumber> {
        number(self.field(100, 8))
    }

    pub(super) fn uid(&self) -> Result<i128, BadNumber> {
        number(self.field(108, 8))
    }

    pub(super) fn gid(&self) -> Result<i128, BadNumber> {
        number(self.field(116, 8))
    }

    pub(super) fn mtime(&self) -> Result<i128, BadNumber> {
        number(self.field(136, 12))
    }

    pub(super) fn device(&self) -> Result<(i128, i128), BadNumber> {
        if self.format() == HeaderFormat::V7 {
            return Ok((0, 0));
        }
        Ok((number(self.field(329, 8))?, number(self.field(337, 8))?))
    }

    /// Bytes stored after the header. Part of the frame, so it must be a valid number.
    pub(super) fn size(&self, offset: u64) -> Result<u64, Error> {
        size(self.field(124, 12))
            .ok_or_else(|| Error::integrity(format!("tar: the header at byte {offset} of the stream has an impossible size")))
    }

    /// Map of an old GNU sparse file: extents in this block, whether more blocks follow, and the file's real size.
    pub(super) fn old_sparse(&self) -> Option<(Vec<Piece>, bool, u64)> {
        Some((pieces(self.field(386, 96))?, self.field(482, 1) != [0], size(self.field(483, 12))?))
    }
}

/// Extents in a further block of an old GNU sparse map, and whether another one follows.
pub(super) fn old_sparse_extension(block: &[u8; BLOCK]) -> Option<(Vec<Piece>, bool)> {
    let (map, rest) = block.split_at(504);
    Some((pieces(map)?, rest.first() != Some(&0)))
}

fn pieces(map: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    for record in map.chunks_exact(24) {
        let (offset, length) = record.split_at(12);
        if record.first() == Some(&0) {
            break;
        }
        pieces.push(Piece { offset: size(offset)?, length: size(length)? });
    }
    Some(pieces)
}

/// A number of bytes.
fn size(field: &[u8]) -> Option<u64> {
    number(field).ok().and_then(|value| u64::try_from(value).ok()).filter(|value| *value <= i64::MAX as u64)
}

/// The bytes of a field up to its NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal surrounded by spaces and NULs, or base 256 if the first bit is set. An empty field is 0.
fn number(field: &[u8]) -> Result<i128, BadNumber> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

/// Two's complement of all bits but the first.
fn base_256(field: &[u8]) -> Result<i128, BadNumber> {
    let Some((first, rest)) = field.split_first() else { return Ok(0) };
    // Bit 6 is the sign.
    let mut value = i128::from(first & 0x3f) - i128::from(first & 0x40);
    for byte in rest {
        value = value << 8 | i128::from(*byte);
    }
    Ok(value)
}

fn octal(field: &[u8]) -> Result<i128, BadNumber> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let mut value = 0;
    let mut digits = field.iter().skip_while(|byte| blank(byte));
    for byte in digits.by_ref() {
        match byte {
            b'0'..=b'7' => value = value << 3 | i128::from(byte - b'0'),
            byte if blank(byte) => break,
            _ => return Err(BadNumber),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_may_be_negative() {
        for (field, value) in [
            (&b"0000644\0"[..], Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"", Ok(0)),
            (b"77777777", Ok(0o77777777)),
            (b"\x80\0\0\0\0\x20\0\0", Ok(0x20_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
            (b"-1\0", Err(BadNumber)),
            (b"0x10", Err(BadNumber)),
            (b"1238\0", Err(BadNumber)),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Ok(-1));
    }

    #[test]
    fn checksums_hold_unsigned_and_signed() {
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(b"na\xefve"[..4].try_into().unwrap());
        for sum in [
            block.iter().map(|byte| i64::from(*byte)).sum::<i64>() + 256,
            block.iter().map(|byte| i64::from(*byte as i8)).sum::<i64>() + 256,
        ] {
            let mut block = block;
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert!(Header::parse(&block).is_some());
            block[0] ^= 1;
            assert!(Header::parse(&block).is_none());
        }
    }
}
