//! Staged tags in `status`.

use std::sync::Arc;

use super::super::{Selection, StagedTag};
use super::syncing::{published, registry};
use super::test_mount::{Setup, TestMount};
use crate::artifact::Kind;
use crate::registry::Pull;
use crate::staging::{Binding, Named, TagKey, Uppers};

#[tokio::test]
async fn status_counts_all_that_a_sync_leaves_out() {
    let mount = TestMount::writable(registry());
    for path in [".DS_Store", "built/a.o", "built/deep/b", "kept", "x.log"] {
        let mut at = "team/app/v1".to_owned();
        for name in path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            at = format!("{at}/{name}");
            // The second time it is there.
            let _ = mount.make(&at, Kind::Directory).await;
        }
        mount.put(&format!("team/app/v1/{path}"), "text").await;
    }
    mount.make("team/app/v1/socket", Kind::Socket).await.unwrap();
    let left_out = async || mount.fs.staged().await[0].ignored;
    assert_eq!(left_out().await, 2, "a dropping and a socket");
    mount.put("team/app/v1/.ocifsignore", "*.log\nbuilt/\n").await;
    assert_eq!(left_out().await, 5);
    assert_eq!(published(&mount.sync().await), ["reg.io/team/app:v1"]);
    let other = TestMount::with_shared(Arc::clone(&mount.registry));
    assert_eq!(other.list("team/app/v1").await, [".ocifsignore", "a.txt", "dir", "kept"]);
}

#[tokio::test]
async fn older_edits_beside_newer_ones_are_listed() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "newer").await;
    let tag_key = |tag: &str| TagKey {
        origin: mount.registry.origin().to_owned(),
        authority: "reg.io".to_owned(),
        repository: "team/app".to_owned(),
        tag: tag.to_owned(),
    };
    let older = tag_key("v1@7");
    {
        let uppers = Uppers::open(&mount.state_directory(), None).unwrap();
        let upper = uppers.create(&older, Binding::default(), None).unwrap();
        upper.change(|change| change.put_name(0, b"older", Named::Whiteout)).unwrap();
    }
    let mount = mount.again(Setup::writable());
    assert_eq!(mount.fs.adopt().await.len(), 2);
    for _ in 0..2 {
        let staged = mount.fs.staged().await;
        let shown: Vec<_> = staged.iter().map(|tag| (tag.reference.as_str(), tag.path.as_str(), tag.error.is_some())).collect();
        assert_eq!(shown, [("reg.io/team/app:v1@7", "team/app/v1", true), ("reg.io/team/app:v1", "team/app/v1", false)]);
    }
    assert_eq!(mount.fs.staged_of(&Selection::Path("team/app/v1".to_owned())).await.unwrap().len(), 2);
    assert_eq!(published(&mount.sync().await), ["reg.io/team/app:v1"], "only the next mount takes the others");
}

#[tokio::test]
async fn edits_are_counted_alone_while_their_artifact_cannot_be_fetched() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.put("team/app/v1/new", "12345").await;
    mount.mkdir("team/app/v1/made").await;
    mount.put("team/app/v1/made/deep", "1").await;
    mount.remove("team/app/v1/dir/b.txt").await.unwrap();
    let exact = mount.fs.staged().await;
    let alone = mount.again_alone(Setup::writable()).await.without_cache();
    assert_eq!(alone.fs.adopt().await.len(), 1);
    let estimated = alone.fs.staged().await;
    assert!(estimated[0].estimated && estimated[0].error.is_none(), "{estimated:?}");
    let figures = |tag: &StagedTag| (tag.added, tag.changed, tag.removed, tag.bytes);
    assert_eq!((estimated.len(), figures(&estimated[0])), (1, figures(&exact[0])));
    assert_eq!(figures(&exact[0]), (3, 1, 1, 13));
}
