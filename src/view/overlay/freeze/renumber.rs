//! Finds nodes again after the numbers of a tree have changed, as when another version builds it: by the paths
//! stored in the rows of its nodes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::artifact::Artifact;
use crate::error::Error;
use crate::layer::Xattrs;
use crate::oci::Digest;
use crate::staging::{Change, Content, NameRow, Named, Node, NodeKey, ORIGIN, STAGED, Upper};

/// New numbers of nodes of the tree below.
pub(in crate::view::overlay) type Numbers = HashMap<NodeKey, NodeKey>;

/// Gives rows the current numbers of their nodes in the trees. Does nothing if they have them.
pub(in crate::view::overlay) fn renumber(upper: &Upper, artifacts: &HashMap<Digest, Arc<Artifact>>) -> Result<(), Error> {
    let below = upper.binding().under.and_then(|digest| artifacts.get(&digest));
    let mut numbers = Numbers::new();
    let mut is_changed = false;
    upper.rows().each_node(&mut |key, node| {
        if let Content::Tree(tree) = &node.content {
            is_changed |= artifacts.get(&tree.manifest).is_some_and(|artifact| artifact.tree.find(&tree.path) != Some(tree.node));
        }
        if key == 0 || key >= STAGED {
            return Ok(());
        }
        let path = origin(upper, key, &node)?.unwrap_or_default();
        let now = below.and_then(|below| Some((below.tree.find(&path)?, &below.tree)));
        let now = now.filter(|(id, tree)| *id != 0 && tree.node(*id).is_some_and(|now| now.kind == node.kind));
        let (id, _) = now.ok_or_else(|| lost(&path, below.map(|below| below.manifest.digest)))?;
        is_changed |= NodeKey::from(id) != key;
        numbers.insert(key, id.into());
        Ok(())
    })?;
    renumber_below(upper, artifacts)?;
    if is_changed { apply(upper, &numbers, &|manifest, path| artifacts.get(manifest)?.tree.find(path)) } else { Ok(()) }
}

/// Renumbers the nodes of trees below staged files.
fn renumber_below(upper: &Upper, artifacts: &HashMap<Digest, Arc<Artifact>>) -> Result<(), Error> {
    let mut changed = Vec::new();
    for (id, tree) in upper.trees_below()? {
        let Some(artifact) = artifacts.get(&tree.manifest) else { continue };
        let node = artifact.tree.find(&tree.path).ok_or_else(|| lost(&tree.path, Some(tree.manifest)))?;
        if node != tree.node {
            changed.push((id, node));
        }
    }
    if changed.is_empty() { Ok(()) } else { upper.renumber_below(&changed) }
}

/// The path of a row's node in the tree below.
fn origin(upper: &Upper, key: NodeKey, node: &Node) -> Result<Option<Vec<u8>>, Error> {
    match &node.content {
        Content::Tree(tree) if Some(tree.manifest) == upper.binding().under => Ok(Some(tree.path.clone())),
        _ => Ok(upper.rows().xattrs(key)?.into_iter().find(|(name, _)| name == ORIGIN).map(|(_, path)| path)),
    }
}

/// One row with everything that belongs to it.
struct Taken {
    key: NodeKey,
    node: Node,
    xattrs: Xattrs,
    names: Vec<NameRow>,
}

/// Rewrites all rows whose numbers changed, in one transaction; `locate` finds a path in the tree of a manifest.
pub(in crate::view::overlay) fn apply(
    upper: &Upper,
    numbers: &Numbers,
    locate: &dyn Fn(&Digest, &[u8]) -> Option<u32>,
) -> Result<(), Error> {
    let mut taken = Vec::new();
    upper.rows().each_node(&mut |key, node| {
        let (xattrs, mut names) = (upper.rows().xattrs(key)?, Vec::new());
        upper.rows().each_name(key, 0, &mut |row| {
            names.push(row);
            Ok(true)
        })?;
        taken.push(Taken { key, node, xattrs, names });
        Ok(())
    })?;
    let was_edited = upper.is_edited();
    upper.change(|change| {
        let given: HashMap<NodeKey, NodeKey> =
            taken.iter().map(|row| (row.key, numbers.get(&row.key).copied().unwrap_or(row.key))).collect();
        for row in &taken {
            row.names.iter().try_for_each(|name| change.drop_name(row.key, &name.name))?;
        }
        for row in taken {
            put(change, row, &given, locate)?;
        }
        // A number that was just put is not dropped, even if another row had it before.
        let kept: std::collections::HashSet<NodeKey> = given.values().copied().collect();
        for key in given.keys().filter(|key| !kept.contains(key)) {
            change.drop_node(*key)?;
        }
        if !was_edited {
            change.set_unedited();
        }
        Ok(())
    })
}

fn put(
    change: &mut Change<'_>,
    row: Taken,
    given: &HashMap<NodeKey, NodeKey>,
    locate: &dyn Fn(&Digest, &[u8]) -> Option<u32>,
) -> Result<(), Error> {
    let number = |key: NodeKey| given.get(&key).copied().unwrap_or(key);
    let Taken { key, mut node, xattrs, names } = row;
    node.parent = number(node.parent);
    if let Content::Tree(tree) = &mut node.content {
        tree.node = locate(&tree.manifest, &tree.path).ok_or_else(|| lost(&tree.path, Some(tree.manifest)))?;
    }
    change.put_node(number(key), &node)?;
    change.put_xattrs(number(key), &xattrs)?;
    for name in names {
        let named = match name.named {
            Named::Node(node) => Named::Node(number(node)),
            Named::Whiteout => Named::Whiteout,
        };
        change.put_name(number(key), &name.name, named)?;
    }
    Ok(())
}

/// Edits are never dropped silently: opening them reports the file they belong to.
fn lost(path: &[u8], manifest: Option<Digest>) -> Error {
    let path = String::from_utf8_lossy(path).escape_debug().to_string();
    let manifest = manifest.map_or_else(|| "an empty tag".to_owned(), |digest| digest.to_string());
    let message = format!("the staged edits belong to `{path}`, which the tree of {manifest} no longer shows; discard them");
    Error::integrity(message)
}
