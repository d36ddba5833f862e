//! Everything visible of a directory, for comparing two of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One name.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    /// Bytes of a file, target of a link, nothing for a directory.
    content: Vec<u8>,
    /// Modification time of a file in seconds.
    modified: Option<i64>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.content[..self.content.len().min(16)]).into_owned();
        write!(
            formatter,
            "{:o} {:?} links {} {} bytes {start:?} {:?}",
            self.mode,
            self.owner,
            self.links,
            self.content.len(),
            self.modified
        )
    }
}

/// Every name below a directory.
pub fn read(root: &Path) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    walk(root, "", &mut seen);
    seen
}

fn walk(directory: &Path, prefix: &str, seen: &mut BTreeMap<String, Seen>) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if prefix.is_empty() && error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("{}: {error}", directory.display()),
    };
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
        } else if metadata.is_file() {
            fs::read(entry.path()).unwrap()
        } else {
            Vec::new()
        };
        // The clocks of the two sides differ slightly: only times set by the test itself, long ago, are compared.
        let modified = Some(metadata.mtime()).filter(|time| metadata.is_file() && *time < 1_750_000_000);
        let owner = (metadata.uid(), metadata.gid());
        seen.insert(path.clone(), Seen { mode: metadata.mode(), owner, links: metadata.nlink(), content, modified });
        if metadata.is_dir() {
            walk(&entry.path(), &format!("{path}/"), seen);
        }
    }
}
