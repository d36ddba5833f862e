//! Oracles that several targets share.

use std::ops::Range;

use ocifs::error::Error;
use ocifs::layer::{LayerIndex, SpanSink};

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
