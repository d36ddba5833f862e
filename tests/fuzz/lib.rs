//! Oracles that several targets share.

use std::ops::Range;

use ocifs::error::Error;
use ocifs::layer::{LayerIndex, Resources, SpanDecoder, SpanSink, Table};
use ocifs::oci::Digest;

/// Collects the stream of a scan, and checks that its spans follow one another.
#[derive(Default)]
pub struct Stream(pub Vec<u8>);

impl SpanSink for Stream {
    fn member(&mut self, stream: Range<u64>) -> Result<(), Error> {
        assert!(stream.start <= stream.end);
        Ok(())
    }

    fn span(&mut self, _number: u32, stream: Range<u64>, data: &[u8]) -> Result<(), Error> {
        assert_eq!(stream, self.0.len() as u64..(self.0.len() + data.len()) as u64);
        self.0.extend_from_slice(data);
        Ok(())
    }
}

/// Reads every record of an index that was accepted: none may fail or lie outside.
pub fn read_all(index: &LayerIndex) {
    for entry in index.entries() {
        for extent in index.extents(entry.number) {
            assert!(extent.file.checked_add(extent.length).is_some_and(|end| end <= entry.size));
            assert!(extent.stream.checked_add(extent.length).is_some_and(|end| end <= index.stream_length()));
        }
        for (name, value) in index.xattrs(entry.number) {
            std::hint::black_box((name.len(), value.len()));
        }
    }
    for member in index.members() {
        assert!(member.start <= member.end && member.end <= index.stream_length());
    }
    let mut position = 0;
    for number in 0..index.span_count() {
        let span = index.span(number).expect("a span below the count");
        assert_eq!(span.stream.start, position);
        position = span.stream.end;
        assert!(span.blob.end <= index.blob_length());
        assert!(index.restart_for(number) <= number);
        std::hint::black_box(index.window(number).is_ok());
    }
    assert_eq!(position, index.stream_length());
    std::hint::black_box(index.warnings().len());
}

/// Layers that end with a table, as the formats want it.
pub mod tables {
    use std::io::Write;

    use ocifs::layer::Table;
    use ocifs::oci::Digest;

    /// Bytes before the table, where chunks may lie: the first is a gzip member and a zstd frame of nothing in particular.
    fn chunks() -> Vec<u8> {
        let mut blob = vec![0];
        blob.extend(gzip(b"foo"));
        blob.extend(zstd::bulk::compress(b"foo", 1).expect("bytes in memory"));
        blob
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    /// An eStargz layer with this table.
    pub fn estargz(text: &[u8]) -> (Vec<u8>, Table) {
        let mut blob = chunks();
        let offset = blob.len();
        let mut header = [0_u8; 512];
        header[..17].copy_from_slice(b"stargz.index.json");
        header[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
        header[156] = b'0';
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        blob.extend(gzip(&[&header, text].concat()));
        blob.extend(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
        blob.extend(format!("{offset:016x}STARGZ").as_bytes());
        blob.extend(b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
        (blob, Table::Estargz { digest: Digest::of(text) })
    }

    /// A zstd:chunked layer with this table.
    pub fn zstd_chunked(text: &[u8]) -> (Vec<u8>, Table) {
        let mut blob = chunks();
        let (start, packed) = (blob.len() as u64, zstd::bulk::compress(text, 1).expect("bytes in memory"));
        blob.extend(&packed);
        let place = start..blob.len() as u64;
        (blob, Table::ZstdChunked { digest: Digest::of(&packed), place, length: text.len() as u64 })
    }
}

/// Reads a table as a mount does. An index that it makes has every file inside its stream, and every chunk can be decoded or is an error.
pub fn read_table(text: &[u8], layer: impl Fn(&[u8]) -> (Vec<u8>, Table)) {
    let (blob, table) = layer(text);
    let length = blob.len() as u64;
    let range = |range: &Range<u64>| &blob[range.start as usize..range.end as usize];
    let first = table.first(length).expect("a layer with a table");
    let place = table.place(range(&first), length).expect("a table where it was put");
    let Ok(index) = table.index(range(&place), place.clone(), (Digest::of(&blob), length), &Resources::default()) else { return };
    assert!(index.is_of_content());
    read_all(&index);
    for number in 0..index.span_count() {
        let span = index.span(number).expect("a span below the count");
        assert!(span.digest.is_some() && span.blob.start > 0 && span.blob.end <= place.start);
        let mut decoder = SpanDecoder::new(&index, number, &Resources::default().windows).expect("a chunk can be decoded alone");
        let mut out = Vec::new();
        let wanted = (span.stream.end - span.stream.start) as usize;
        std::hint::black_box(decoder.decode(range(&span.blob), &mut out, wanted).is_ok());
        assert!(out.len() <= wanted);
    }
}
