//! Walks the selected names of a tree: parents before children, names in byte order. A directory that is not selected itself is entered
//! once something below it is. Holds one path in memory.

use super::selection::Selection;
use crate::artifact::{Kind, NodeId, Tree};
use crate::error::Error;
use crate::path::{name, push};

/// A step of a walk. Paths start at the root of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A directory below the current one becomes the current one.
    Enter { node: NodeId, path: &'a [u8], name: &'a [u8] },
    /// Anything but a directory, in the current one.
    Entry { node: NodeId, path: &'a [u8], name: &'a [u8], cookie: u64 },
    /// All names of the current directory were visited. The last step leaves the root.
    Leave { node: NodeId, path: &'a [u8] },
}

/// A directory on the current path.
struct Level {
    node: NodeId,
    /// Length of its path.
    path: usize,
    /// Cookie of the last name.
    cookie: u64,
    /// Whether everything below is selected.
    whole: bool,
    entered: bool,
}

/// Walks a tree.
///
/// # Errors
/// Those of `step`.
pub(super) fn walk(tree: &Tree, selection: &Selection, step: &mut dyn FnMut(Step<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let mut path = Vec::new();
    let mut levels = vec![Level { node: 0, path: 0, cookie: 0, whole: selection.is_everything(), entered: true }];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path);
        let Some(child) = tree.children(level.node, level.cookie).next() else {
            if level.entered {
                step(Step::Leave { node: level.node, path: &path })?;
            }
            levels.pop();
            continue;
        };
        level.cookie = child.cookie;
        let whole = level.whole;
        push(&mut path, child.name);
        let selected = whole || selection.names(&path);
        if tree.node(child.node).is_some_and(|node| node.kind == Kind::Directory) {
            levels.push(Level { node: child.node, path: path.len(), cookie: 0, whole: selected, entered: false });
            if selected {
                enter(&mut levels, &path, step)?;
            }
        } else if selected {
            enter(&mut levels, &path, step)?;
            step(Step::Entry { node: child.node, path: &path, name: child.name, cookie: child.cookie })?;
        }
    }
    Ok(())
}

/// Enters the directories of a path that were not entered yet.
fn enter(levels: &mut [Level], path: &[u8], step: &mut dyn FnMut(Step<'_>) -> Result<(), Error>) -> Result<(), Error> {
    for level in levels {
        if !level.entered {
            level.entered = true;
            let whole = path.get(..level.path).unwrap_or_default();
            step(Step::Enter { node: level.node, path: whole, name: name(whole) })?;
        }
    }
    Ok(())
}

/// Visits every selected name that is not a directory, with its path.
pub fn visit(tree: &Tree, selection: &Selection, visitor: &mut dyn FnMut(&[u8], NodeId)) {
    // The visitor does not fail, so neither does the walk.
    let _ = walk(tree, selection, &mut |step| {
        if let Step::Entry { node, path, .. } = step {
            visitor(path, node);
        }
        Ok(())
    });
}
