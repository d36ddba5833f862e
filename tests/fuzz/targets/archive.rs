//! A layer of arbitrary bytes is refused, or read so that every span decoded on its own gives the bytes of the single pass.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ocifs::layer::{Form, LayerIndex, Limits, Resources, Scan, SpanDecoder};
use ocifs::oci::Digest;
use ocifs_fuzz::{Stream, read_all};

/// Enough for any layer that a fuzzer makes; a bomb ends early.
const LIMITS: Limits = Limits {
    entries: 20_000,
    header_bytes: 1 << 16,
    text_bytes: 4 << 20,
    index_bytes: 16 << 20,
    index_reason: "the fuzzer",
    window_bytes: 4 << 20,
};
/// Longest stream worth decoding again.
const STREAM: u64 = 4 << 20;

fuzz_target!(|data: &[u8]| {
    // The first byte chooses how the layer arrives: the result must not depend on it.
    let Some((piece, blob)) = data.split_first() else { return };
    let resources = Resources { limits: LIMITS, ..Resources::default() };
    let (mut scan, mut stream) = (Scan::new(Form::Archive, &resources), Stream::default());
    for piece in blob.chunks(usize::from(*piece) * 16 + 1) {
        if scan.push(piece, &mut stream).is_err() || stream.0.len() as u64 > STREAM {
            return;
        }
    }
    let Ok(index) = scan.finish(Digest::of(blob), &mut stream) else { return };
    let index = LayerIndex::open(Arc::new(index.as_bytes().to_vec())).expect("an index that was just built");
    read_all(&index);
    for number in 0..index.span_count() {
        decode(&index, number, blob, &stream.0);
    }
});

fn decode(index: &LayerIndex, number: u32, blob: &[u8], stream: &[u8]) {
    let restart = index.restart_for(number);
    let (first, last) = (index.span(restart).expect("a span"), index.span(number).expect("a span"));
    let wanted = &stream[first.stream.start as usize..last.stream.end as usize];
    let mut decoder = SpanDecoder::new(index, restart, &Resources::default().windows).expect("a span that can restart");
    let mut out = Vec::new();
    while out.len() < wanted.len() {
        let (at, before) = (decoder.blob_position() as usize, out.len());
        let consumed = decoder.decode(&blob[at..last.blob.end as usize], &mut out, wanted.len() - before).expect("bytes that were decoded before");
        assert!(consumed > 0 || out.len() > before, "span {number} makes no progress");
    }
    assert!(out == wanted, "span {number} differs from the single pass");
}
