//! Which annotations of a layer name its table of contents.

use crate::layer::Table;
use crate::oci::{Descriptor, Digest};

/// Digest of the unpacked table of eStargz.
const ESTARGZ: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Digest of the packed table of zstd:chunked, and where it is: `offset:length:unpacked length:type`. Older versions of the tools have the second names.
const ZSTD_CHUNKED: [(&str, &str); 2] = [
    ("io.github.containers.zstd-chunked.manifest-checksum", "io.github.containers.zstd-chunked.manifest-position"),
    ("io.containers.zstd-chunked.manifest-checksum", "io.containers.zstd-chunked.manifest-position"),
];
/// The type of the only known kind of table.
const KNOWN: &str = "1";

/// The table of contents of a layer, if its descriptor names one.
pub(super) fn table_of(layer: &Descriptor) -> Option<Table> {
    let chunked =
        ZSTD_CHUNKED.iter().find_map(|(checksum, position)| zstd_chunked(layer.annotation(checksum)?, layer.annotation(position)?));
    chunked.or_else(|| Some(Table::Estargz { digest: Digest::parse(layer.annotation(ESTARGZ)?).ok()? }))
}

fn zstd_chunked(checksum: &str, position: &str) -> Option<Table> {
    let mut fields = position.split(':');
    let (start, packed, length) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let is_known = fields.next() == Some(KNOWN) && fields.next().is_none();
    let place = start..start.checked_add(packed)?;
    is_known.then_some(Table::ZstdChunked { digest: Digest::parse(checksum).ok()?, place, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(annotations: &[(&str, &str)]) -> Descriptor {
        let mut layer = Descriptor::new("a/b", Digest::of(b"x"), 100);
        layer.annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        layer
    }

    #[test]
    fn tables_are_found_by_annotations_old_and_new_and_a_broken_one_is_none() {
        let digest = Digest::of(b"table");
        let text = digest.to_string();
        for (checksum, position) in ZSTD_CHUNKED {
            let chunked = |place: &str| table_of(&layer(&[(checksum, &text), (position, place), (ESTARGZ, &text)]));
            assert_eq!(chunked("10:20:300:1"), Some(Table::ZstdChunked { digest, place: 10..30, length: 300 }));
            // A layer with both is read by what remains.
            for odd in ["", "10:20:300", "10:20:300:2", "10:20:300:1:1", "-1:20:300:1", "18446744073709551615:1:1:1", "a:b:c:d"] {
                assert_eq!(chunked(odd), Some(Table::Estargz { digest }), "{odd}");
            }
            assert_eq!(table_of(&layer(&[(checksum, &text)])), None);
        }
        assert_eq!(table_of(&layer(&[(ESTARGZ, "sha256:../x")])), None);
        assert_eq!(table_of(&layer(&[])), None);
    }
}
