//! Attached indexes: the requests they save, and that a wrong one does no harm.

use parking_lot::Mutex;

use super::*;
use crate::layer::tests::encode_attached;
use crate::layer::{Metadata, PackEntry, Packed, Packer, Packing};

/// An output that can be examined afterwards.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file with non-default attributes.
pub(crate) fn file(path: &str, data: &[u8]) -> PackEntry {
    PackEntry {
        path: path.as_bytes().to_vec(),
        kind: FileKind::File,
        metadata: Metadata { mode: Some(0o640), owner: Some((1, 2)), mtime: Some((1_700_000_000, 5)), device: (0, 0) },
        size: data.len() as u64,
        link: Vec::new(),
        xattrs: Vec::new(),
    }
}

pub(super) fn pack(packing: Packing, files: &[(&str, &[u8])]) -> (Packed, Vec<u8>) {
    pack_entries(packing, &files.iter().map(|(path, data)| (file(path, data), *data)).collect::<Vec<_>>())
}

/// A layer and its index, as bytes.
pub(crate) fn pack_entries(packing: Packing, entries: &[(PackEntry, &[u8])]) -> (Packed, Vec<u8>) {
    let output = Output::default();
    let mut packer = Packer::new(packing, 2, Box::new(output.clone()));
    for (entry, data) in entries {
        packer.begin(entry).unwrap();
        packer.data(data).unwrap();
    }
    let packed = packer.finish().unwrap();
    let blob = output.0.lock().clone();
    (packed, blob)
}

/// A blob in the registry that names an index in the registry.
pub(super) fn add(fixture: &ContentFixture, form: Form, blob: &[u8], index: &[u8]) -> BlobSource {
    let index = fixture.memory.add_blob(REPOSITORY, "index", index.to_vec());
    BlobSource { guide: Some(Guide::Index(index)), ..fixture.add(form, blob) }
}

pub(super) fn form_of(packing: Packing) -> Form {
    if packing == Packing::Raw { Form::Raw } else { Form::Archive }
}

/// Requested ranges of the blob itself.
fn ranges(fixture: &ContentFixture, source: &BlobSource) -> Vec<Range<u64>> {
    let wanted = source.descriptor.digest.to_string();
    fixture.memory.requests().into_iter().filter(|request| request.object == wanted).filter_map(|request| request.range).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_with_an_index_is_listed_unfetched_and_read_by_verified_spans() {
    let data = noise(9 * MIB as usize, 21);
    for (packing, strict) in [(Packing::GzipTar, false), (Packing::Tar, true), (Packing::Raw, false), (Packing::Raw, true)] {
        let fixture = ContentFixture::new();
        let (packed, blob) = pack(packing, &[("big", &data)]);
        let source = BlobSource { strict, ..add(&fixture, form_of(packing), &blob, &encode_attached(&packed.index).unwrap()) };
        let contents = fixture.contents();
        let index = match packing {
            Packing::Raw => contents.attached_index(&source).await.unwrap().unwrap(),
            _ => contents.index(&source).await.unwrap(),
        };
        assert_eq!((index.entry(0).unwrap().metadata.mode, ranges(&fixture, &source)), (Some(0o640), Vec::new()));
        let stream = contents.open(&source).await.unwrap();
        let start = index.extents(0)[0].stream;
        let middle = start + 5 * MIB..start + 5 * MIB + 4096;
        assert_eq!(stream.read(middle.clone()).await.unwrap(), data[5 * MIB as usize..5 * MIB as usize + 4096]);
        assert_eq!(stream.verified(), Verified::Whole);
        let asked: u64 = ranges(&fixture, &source).iter().map(|range| range.end - range.start).sum();
        assert!(asked < 3 * MIB, "{packing:?}: {asked}");
        assert!(read_all(&stream).await.unwrap()[start as usize..][..data.len()] == data);

        // Another mount finds index and data.
        fixture.memory.forget_requests();
        let stream = Contents::new(fixture.config(1 << 30)).open(&source).await.unwrap();
        assert_eq!(stream.read(middle).await.unwrap().len(), 4096);
        assert_eq!(fixture.requests(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_index_cannot_be_used_is_read_whole() {
    let data = noise(2 * MIB as usize, 22);
    let (packed, blob) = pack(Packing::GzipTar, &[("a", &data)]);
    let good = encode_attached(&packed.index).unwrap();
    let (other, _) = pack(Packing::GzipTar, &[("b", b"other")]);
    let shorter = other.index.of_blob(packed.blob.0).unwrap();
    let (raw, _) = pack(Packing::Raw, &[("a", &blob)]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", b"no index at all".to_vec()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("of another blob", encode_attached(&other.index).unwrap()),
        ("of another length", encode_attached(&shorter).unwrap()),
        ("of another form", encode_attached(&raw.index).unwrap()),
        ("empty", Vec::new()),
    ];
    for (what, bytes) in cases {
        let fixture = ContentFixture::new();
        let source = add(&fixture, Form::Archive, &blob, &bytes);
        let contents = fixture.contents();
        let index = contents.index(&source).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(ranges(&fixture, &source), vec![0..blob.len() as u64], "{what}");
        let stream = contents.open(&source).await.unwrap();
        assert!(stream.read(extent(&index, "a")).await.unwrap() == data, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_index_is_gone_flipped_or_too_long_is_read_whole() {
    let (packed, blob) = pack(Packing::GzipTar, &[("a", b"data")]);
    let good = encode_attached(&packed.index).unwrap();
    for what in ["gone", "flipped", "longer", "huge"] {
        let fixture = ContentFixture::new();
        let mut source = add(&fixture, Form::Archive, &blob, &good);
        let index = source.guide.as_ref().unwrap().index().unwrap().clone();
        match what {
            "gone" => fixture.memory.remove_blob(REPOSITORY, &index.digest),
            "flipped" => fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Flipped(30)),
            "longer" => source.guide = Some(Guide::Index(Descriptor { size: index.size - 1, ..index })),
            _ => source.guide = Some(Guide::Index(Descriptor { size: u64::MAX, ..index })),
        }
        let index = fixture.contents().index(&source).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((index.entry_count(), ranges(&fixture, &source).len()), (1, 1), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_raw_blob_whose_index_is_gone_is_read_as_if_it_named_none() {
    let data = noise(4 * MIB as usize, 28);
    let fixture = ContentFixture::new();
    let source = add(&fixture, Form::Raw, &data, b"gone");
    fixture.memory.remove_blob(REPOSITORY, &source.guide.as_ref().unwrap().key());
    let stream = fixture.contents().open(&source).await.unwrap();
    assert_eq!(stream.read(3 * MIB..3 * MIB + 10).await.unwrap(), data[3 * MIB as usize..3 * MIB as usize + 10]);
    assert_eq!((stream.verified(), ranges(&fixture, &source).len()), (Verified::Partial, 1));
    let strict = BlobSource { strict: true, ..source };
    let stream = fixture.contents().open(&strict).await.unwrap();
    assert_eq!(stream.read(0..10).await.unwrap(), data[..10]);
    assert_eq!(stream.verified(), Verified::Whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_index_request_is_an_error_and_is_retried() {
    let (packed, blob) = pack(Packing::GzipTar, &[("a", b"data")]);
    let fixture = ContentFixture::new();
    let source = add(&fixture, Form::Archive, &blob, &encode_attached(&packed.index).unwrap());
    let contents = fixture.contents();
    for fault in [Fault::Error(ErrorKind::Unreachable), Fault::Short(5, ErrorKind::TimedOut)] {
        fixture.memory.plan(RequestKind::Blob, 0, 1, fault.clone());
        let error = contents.index(&source).await.err().unwrap();
        assert!(matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut), "{fault:?}: {error}");
    }
    contents.index(&source).await.unwrap();
    assert_eq!(ranges(&fixture, &source), Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_span_is_never_served_and_the_blob_is_read_whole_instead() {
    let data = noise(6 * MIB as usize, 23);
    for packing in [Packing::GzipTar, Packing::Tar, Packing::Raw] {
        let (packed, blob) = pack(packing, &[("a", &data)]);
        let fixture = ContentFixture::new();
        let source = add(&fixture, form_of(packing), &blob, &encode_attached(&packed.index).unwrap());
        let contents = fixture.contents();
        let stream = contents.open(&source).await.unwrap();
        let start = packed.index.extents(0)[0].stream;
        fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Flipped(100));
        let read = stream.read(start + 3 * MIB..start + 3 * MIB + 100).await.unwrap();
        assert_eq!(read, data[3 * MIB as usize..3 * MIB as usize + 100], "{packing:?}");
        assert!(!contents.trusts(&source) && !Contents::new(fixture.config(1 << 30)).trusts(&source));
        // A stream opened now is read without the index from the start.
        let again = contents.open(&source).await.unwrap();
        assert!(read_all(&again).await.unwrap()[start as usize..][..data.len()] == data, "{packing:?}");
        assert_eq!(again.verified(), Verified::Whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_blob_is_an_error_with_or_without_an_index() {
    let data = noise(4 * MIB as usize, 24);
    for packing in [Packing::GzipTar, Packing::Raw] {
        let (packed, blob) = pack(packing, &[("a", &data)]);
        let fixture = ContentFixture::new();
        let source = BlobSource { strict: true, ..add(&fixture, form_of(packing), &blob, &encode_attached(&packed.index).unwrap()) };
        let mut bad = blob.clone();
        bad[3 * MIB as usize] ^= 1;
        fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bad);
        let contents = fixture.contents();
        let stream = contents.open(&source).await.unwrap();
        let range = 0..data.len() as u64;
        for _ in 0..2 {
            assert_eq!(stream.read(range.clone()).await.unwrap_err().kind, ErrorKind::Integrity, "{packing:?}");
        }
        // Parts that were right before no longer help.
        assert!(contents.open(&source).await.is_err() || contents.open(&source).await.unwrap().read(range).await.is_err());
    }
}

/// The index of another tar of the same length, claimed for the blob.
fn lie(blob: Digest, path: &str, length: usize) -> Vec<u8> {
    let (packed, _) = pack(Packing::Tar, &[(path, &noise(length, 99))]);
    encode_attached(&packed.index.of_blob(blob).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_wrong_entries_serves_no_byte_and_its_files_stay_errors() {
    let data = noise(3 * MIB as usize, 25);
    let (packed, blob) = pack(Packing::Tar, &[("a", &data)]);
    let fixture = ContentFixture::new();
    let source = add(&fixture, Form::Archive, &blob, &lie(packed.blob.0, "z", data.len()));
    let contents = fixture.contents();
    let shown = contents.index(&source).await.unwrap();
    assert_eq!(shown.entry(0).unwrap().path, b"z");
    let stream = contents.open(&source).await.unwrap();
    for _ in 0..2 {
        let error = stream.read(extent(&shown, "z")).await.unwrap_err();
        assert!(error.kind == ErrorKind::Integrity && error.message.contains("open the artifact again"), "{error}");
        assert_eq!(contents.open(&source).await.err().map(|error| error.kind), Some(ErrorKind::Integrity));
    }
    // Opened again, here and by the next mount, it shows the blob's own entries.
    assert!(!contents.trusts(&source));
    let plain = BlobSource { guide: None, ..source };
    for contents in [contents, Contents::new(fixture.config(1 << 30))] {
        let index = contents.index(&plain).await.unwrap();
        assert!(contents.open(&plain).await.unwrap().read(extent(&index, "a")).await.unwrap() == data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_used_only_by_artifacts_that_name_it() {
    let data = noise(3 * MIB as usize, 26);
    let (packed, blob) = pack(Packing::Tar, &[("a", &data)]);
    let fixture = ContentFixture::new();
    let lying = add(&fixture, Form::Archive, &blob, &lie(packed.blob.0, "z", data.len()));
    let honest = add(&fixture, Form::Archive, &blob, &encode_attached(&packed.index).unwrap());
    let plain = BlobSource { guide: None, ..honest.clone() };
    let contents = fixture.contents();
    assert_eq!(contents.index(&lying).await.unwrap().entry(0).unwrap().path, b"z");
    let stream = contents.open(&lying).await.unwrap();
    for source in [&honest, &plain] {
        let index = contents.index(source).await.unwrap();
        assert!(contents.open(source).await.unwrap().read(extent(&index, "a")).await.unwrap() == data);
    }
    // From now on the blob's own index takes precedence, for everyone.
    assert_eq!(contents.index(&lying).await.unwrap().entry(0).unwrap().path, b"a");
    assert!(stream.read(0..MIB).await.is_err() || !contents.trusts(&lying));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_packed_here_are_listed_without_a_request() {
    for packing in [Packing::GzipTar, Packing::Raw] {
        let (packed, blob) = pack(packing, &[("a", b"data")]);
        let travels = encode_attached(&packed.index).unwrap();
        let fixture = ContentFixture::new();
        let source = add(&fixture, form_of(packing), &blob, &travels);
        let contents = fixture.contents();
        contents.adopt(&packed.index, Some(&Digest::of(&travels)));
        for contents in [contents, Contents::new(fixture.config(1 << 30))] {
            let index = match packing {
                Packing::Raw => contents.attached_index(&source).await.unwrap().unwrap(),
                _ => contents.index(&source).await.unwrap(),
            };
            assert_eq!(index.entry(0).unwrap().path, b"a");
        }
        assert_eq!(fixture.requests(), 0);
    }
    // Without a name to attach by, it becomes the blob's own.
    let (packed, blob) = pack(Packing::GzipTar, &[("a", b"data")]);
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &blob);
    let contents = fixture.contents();
    contents.adopt(&packed.index, None);
    assert_eq!((contents.index(&source).await.unwrap().entry_count(), fixture.requests()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_index_causes_a_panic_or_wrong_bytes() {
    let data = noise(MIB as usize / 4, 27);
    let (packed, blob) = pack(Packing::GzipTar, &[("a", &data), ("b", b"second")]);
    let good = packed.index.as_bytes().to_vec();
    let mut accepted = 0;
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[24..]).to_le_bytes();
        bytes[16..24].copy_from_slice(&checksum);
        let Some(travels) = LayerIndex::open(Arc::new(bytes)).ok().and_then(|index| encode_attached(&index).ok()) else { continue };
        let fixture = ContentFixture::new();
        let source = add(&fixture, Form::Archive, &blob, &travels);
        let contents = fixture.contents();
        let index = contents.index(&source).await.unwrap();
        accepted += u32::from(ranges(&fixture, &source).is_empty());
        let Ok(stream) = contents.open(&source).await else { continue };
        for entry in index.entries() {
            for extent in index.extents(entry.number) {
                // The bytes are those of the stream at that offset, or there is an error.
                if let Ok(read) = stream.read(extent.stream..extent.stream + extent.length).await {
                    let whole = decoded(&blob);
                    let end = (extent.stream + extent.length).min(whole.len() as u64) as usize;
                    assert!(read == whole[(extent.stream as usize).min(end)..end], "byte {at}");
                }
            }
        }
    }
    assert!(accepted > 10, "only {accepted} changed indexes were used at all");
}

fn decoded(blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(blob), &mut out).unwrap();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_only_a_referrer_names_is_followed_by_nobody_who_is_strict_or_knows_better() {
    let data = noise(9 * MIB as usize, 31);
    let layer = gzip(&tar(&[("a", &data), ("b", b"b")]));
    let fixture = ContentFixture::new();
    let plain = fixture.add(Form::Archive, &layer);
    // Compressed by others, so most spans start inside deflate.
    let own = ContentFixture::new().contents_of(&plain, &layer).await;
    let index = fixture.memory.add_blob(REPOSITORY, "index", encode_attached(&own).unwrap());
    let referred = BlobSource { guide: Some(Guide::Referred(index)), ..plain.clone() };
    let contents = fixture.contents();
    assert!(contents.follows(&referred) && !contents.follows(&BlobSource { strict: true, ..referred.clone() }));
    let shown = contents.index(&referred).await.unwrap();
    let stream = contents.open(&referred).await.unwrap();
    let wanted = extent(&shown, "a").start + 5 * MIB;
    assert!(stream.read(wanted..wanted + 4096).await.unwrap() == data[5 * MIB as usize..][..4096]);
    assert_eq!(stream.verified(), Verified::Index);
    let asked: u64 = ranges(&fixture, &plain).iter().map(|range| range.end - range.start).sum();
    assert!(asked < 4 * MIB, "{asked}");
    contents.index(&plain).await.unwrap();
    assert!(!contents.follows(&referred) && contents.follows(&plain));
}
