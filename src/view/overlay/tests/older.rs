//! Uppers of older versions are converted when opened, and published like any other.

use super::*;

/// A state directory as a killed process of the first format left it. In `sample`, over the tree of that name: a write into `file`, a
/// new file with two names, a new directory, a directory and a link that were renamed and removed, extended attributes, a mode, a time.
/// The tag `deleted` was deleted.
const FORMAT_1: &[u8] = include_bytes!("../../../staging/tests/upper-of-format-1.tar.gz");

#[tokio::test]
async fn an_upper_of_the_first_format_is_read_edited_and_published() {
    let fixture = TagFixture::new();
    let state = tempfile::tempdir().unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(FORMAT_1)).unpack(state.path()).unwrap();
    let uppers = Uppers::open(state.path(), None).unwrap();
    let base = fixture.push("sample", &sample());
    for _ in 0..2 {
        let tag = Overlay::open(&fixture.context, uppers.find(&tag_key("sample")).unwrap().unwrap()).await.unwrap();
        assert_eq!(tag.binding(), Binding { under: Some(base), expected: Some(base), deleted: false });
        assert!(tag.is_edited());
        let changes = [
            "R dir",
            "R dir/deep",
            "R dir/deep/bottom",
            "R dir/inner",
            "C file",
            "A made",
            "A made/inside",
            "A moved",
            "A moved/deep",
            "A moved/deep/bottom",
            "A moved/inner",
            "A new",
            "C pipe",
            "A second",
            "R symlink",
            "A three",
        ];
        assert_eq!(fixture.changes(&tag).await, changes);
        for (path, content) in [("file", "hEYlo"), ("second", "a new file"), ("made/inside", "inside"), ("moved/inner", "inner")] {
            assert_eq!(fixture.read(&tag, path).await, content.as_bytes(), "{path}");
        }
        assert_eq!(tag.xattr(node(&tag, "file"), b"user.y").unwrap().as_deref(), Some(&b"2"[..]));
        let new = fixture.attributes(&tag, "new");
        assert_eq!((new.mode, new.time, new.links), (0o600, (1_000_000, 0), 2));
    }
    let tag = Overlay::open(&fixture.context, uppers.find(&tag_key("sample")).unwrap().unwrap()).await.unwrap();
    fixture.write(&tag, "made/inside", b"edited by this version").await;
    assert!(fixture.publish(&tag).await && !tag.is_edited());
    assert_eq!(fixture.changes(&tag).await, [""; 0]);
    assert_eq!(fixture.read(&tag, "file").await, b"hEYlo");
    let deleted = uppers.find(&tag_key("deleted")).unwrap().unwrap();
    assert!(deleted.binding().deleted && deleted.is_edited());
}
