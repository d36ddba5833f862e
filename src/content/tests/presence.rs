//! How much of a blob is here: known without a request, whether it is open or not.

use super::attached_index::{add, form_of, pack};
use super::*;
use crate::layer::Packing;
use crate::layer::tests::encode_attached;

fn present(contents: &Contents, source: &BlobSource, range: Range<u64>) -> u64 {
    contents.presence(source).of(&range)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_of_a_raw_blob_is_counted_by_spans() {
    let fixture = ContentFixture::new();
    let (small, large) = (fixture.add(Form::Raw, b"some text"), fixture.add(Form::Raw, &noise(20 * MIB as usize + 5, 1)));
    let whole = 0..20 * MIB + 5;
    let contents = fixture.contents();
    assert_eq!((present(&contents, &small, 0..9), present(&contents, &large, whole.clone())), (0, 0));
    contents.open(&small).await.unwrap().read(0..1).await.unwrap();
    contents.open(&large).await.unwrap().read(20 * MIB..20 * MIB + 1).await.unwrap();
    let requests = fixture.requests();
    for contents in [contents, fixture.contents()] {
        assert_eq!((present(&contents, &small, 0..9), present(&contents, &small, 3..5)), (9, 2));
        assert_eq!((present(&contents, &large, whole.clone()), present(&contents, &large, 20 * MIB - 7..20 * MIB + 2)), (5, 2));
        assert_eq!(present(&contents, &large, 0..20 * MIB), 0);
    }
    assert_eq!(fixture.requests(), requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_of_a_layer_is_known_once_its_index_is() {
    let data = noise(9 * MIB as usize, 21);
    for packing in [Packing::GzipTar, Packing::Tar, Packing::Raw] {
        let fixture = ContentFixture::new();
        let (packed, blob) = pack(packing, &[("big", &data)]);
        let source = add(&fixture, form_of(packing), &blob, &encode_attached(&packed.index).unwrap());
        let start = packed.index.extents(0)[0].stream;
        let (file, part) = (start..start + 9 * MIB, start + 5 * MIB..start + 5 * MIB + 4096);
        let contents = fixture.contents();
        assert_eq!((present(&contents, &source, file.clone()), fixture.requests()), (0, 0), "{packing:?}");
        let unknown = contents.presence(&source).spans_of(&part);
        assert!(unknown.iter().any(|span| span.start <= part.start && part.start < span.end), "{packing:?}: unknown is not free");
        contents.open(&source).await.unwrap().read(part.clone()).await.unwrap();
        let requests = fixture.requests();
        for contents in [contents, fixture.contents()] {
            let found = present(&contents, &source, file.clone());
            assert!((4096..4 * MIB).contains(&found), "{packing:?}: {found}");
            assert_eq!(present(&contents, &source, part.clone()), 4096, "{packing:?}");
        }
        assert_eq!(fixture.requests(), requests, "{packing:?}");
    }
    // Read whole, since it has no index.
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &gzip(&tar(&[("big", &data)])));
    let index = fixture.contents().index(&source).await.unwrap();
    assert_eq!(present(&fixture.contents(), &source, extent(&index, "big")), 9 * MIB);
    assert_eq!(fixture.requests(), 1);
}
