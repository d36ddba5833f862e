//! Names of files that a power cut may have damaged, derived from the rows of an upper alone.

use std::collections::HashMap;

use super::{Content, Named, NodeKey, ORIGIN, Upper};
use crate::error::Error;

/// Deepest nesting of directories; a damaged upper may have a cycle.
const DEEPEST: usize = 4096;

impl Upper {
    /// A path for each file that a power cut may have damaged, without the tree below; a renamed directory may appear under its old name. For
    /// announcements.
    pub fn suspect_names(&self) -> Result<Vec<Vec<u8>>, Error> {
        let suspects = self.suspects();
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let (mut homes, mut damaged) = (HashMap::new(), Vec::new());
        self.rows().each_node(&mut |key, node| {
            self.note_names(key, &mut homes)?;
            if matches!(node.content, Content::Data(id) if suspects.contains(&id)) {
                let origin = self.rows().xattrs(key)?.into_iter().find(|(name, _)| name == ORIGIN).map(|(_, path)| path);
                damaged.push((key, origin));
            }
            Ok(())
        })?;
        self.note_names(0, &mut homes)?;
        let named =
            |(key, origin): (NodeKey, Option<Vec<u8>>)| origin.filter(|_| !homes.contains_key(&key)).unwrap_or_else(|| path(&homes, key));
        Ok(damaged.into_iter().map(named).collect())
    }

    /// Records where the names in a directory lead.
    fn note_names(&self, directory: NodeKey, homes: &mut HashMap<NodeKey, (NodeKey, Vec<u8>)>) -> Result<(), Error> {
        self.rows().each_name(directory, 0, &mut |row| {
            if let Named::Node(key) = row.named {
                homes.insert(key, (directory, row.name));
            }
            Ok(true)
        })
    }
}

fn path(homes: &HashMap<NodeKey, (NodeKey, Vec<u8>)>, key: NodeKey) -> Vec<u8> {
    let (mut parts, mut at): (Vec<&[u8]>, _) = (Vec::new(), key);
    while at != 0 && parts.len() < DEEPEST {
        let Some((directory, name)) = homes.get(&at) else {
            parts.push("…".as_bytes());
            break;
        };
        parts.push(name);
        at = *directory;
    }
    parts.reverse();
    parts.join(&b'/')
}
