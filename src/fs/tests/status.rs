//! What `status` says of staged tags.

use std::sync::Arc;

use super::super::Selection;
use super::syncing::{published, registry};
use super::world::{Setup, World};
use crate::artifact::Kind;
use crate::registry::Pull;
use crate::staging::{Binding, Named, Subject, Uppers};

#[tokio::test]
async fn status_counts_all_that_a_sync_leaves_out() {
    let world = World::writable(registry());
    for path in [".DS_Store", "built/a.o", "built/deep/b", "kept", "x.log"] {
        let mut at = "team/app/v1".to_owned();
        for name in path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            at = format!("{at}/{name}");
            // The second time it is there.
            let _ = world.make(&at, Kind::Directory).await;
        }
        world.put(&format!("team/app/v1/{path}"), "text").await;
    }
    world.make("team/app/v1/socket", Kind::Socket).await.unwrap();
    let left_out = async || world.fs.staged().await[0].droppings;
    assert_eq!(left_out().await, 2, "a dropping and a socket");
    world.put("team/app/v1/.ocifsignore", "*.log\nbuilt/\n").await;
    assert_eq!(left_out().await, 5);
    assert_eq!(published(&world.sync().await), ["reg.io/team/app:v1"]);
    let other = World::with_shared(Arc::clone(&world.registry));
    assert_eq!(other.list("team/app/v1").await, [".ocifsignore", "a.txt", "dir", "kept"]);
}

#[tokio::test]
async fn older_edits_beside_newer_ones_are_listed() {
    let world = World::writable(registry());
    world.put("team/app/v1/a.txt", "newer").await;
    let subject = |tag: &str| Subject {
        origin: world.registry.origin().to_owned(),
        authority: "reg.io".to_owned(),
        repository: "team/app".to_owned(),
        tag: tag.to_owned(),
    };
    let older = subject("v1@7");
    {
        let uppers = Uppers::open(&world.state_directory(), None).unwrap();
        let upper = uppers.create(&older, Binding::default(), None).unwrap();
        upper.change(|change| change.put_name(0, b"older", Named::Whiteout)).unwrap();
    }
    let world = world.again(Setup::writable());
    assert_eq!(world.fs.adopt().await.len(), 2);
    for _ in 0..2 {
        let staged = world.fs.staged().await;
        let shown: Vec<_> = staged.iter().map(|tag| (tag.reference.as_str(), tag.path.as_str(), tag.error.is_some())).collect();
        assert_eq!(shown, [("reg.io/team/app:v1@7", "team/app/v1", true), ("reg.io/team/app:v1", "team/app/v1", false)]);
    }
    assert_eq!(world.fs.staged_of(&Selection::Path("team/app/v1".to_owned())).await.unwrap().len(), 2);
    assert_eq!(published(&world.sync().await), ["reg.io/team/app:v1"], "they are nobody's business but the next mount's");
}
