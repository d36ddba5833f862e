//! Detects names in one directory that the file system treats as the same, by case folding or Unicode normalisation.
//!
//! The file system's behaviour is probed in a temporary directory instead of looked up in tables.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::directory::Directory;
use super::place::own_name;
use crate::sys::entry;

/// A name, the same in another case, and the same with a decomposed `é`.
const SPELLINGS: [&str; 3] = ["\u{e9}A", "\u{e9}a", "e\u{301}A"];

/// A directory for probing names. It is inside the target directory and inherits its treatment of names.
pub(super) struct Trial {
    parent: Arc<Directory>,
    own: String,
    directory: File,
    made: Vec<Vec<u8>>,
}

impl Trial {
    /// Creates one if the directory treats different names as the same; `None` otherwise.
    pub fn of_folding(parent: &Arc<Directory>) -> io::Result<Option<Self>> {
        let mut trial = Self::new(parent)?;
        let mut spellings = SPELLINGS.into_iter().map(str::as_bytes);
        let folds = spellings.try_fold(false, |found, spelling| Ok::<_, io::Error>(found || trial.clash(spelling)?.is_some()))?;
        // Start afresh, without the probing names.
        if folds { Self::new(parent).map(Some) } else { Ok(None) }
    }

    fn new(parent: &Arc<Directory>) -> io::Result<Self> {
        let own = own_name();
        entry::make_directory(&parent.file, OsStr::new(&own), 0o700)?;
        let directory = entry::open_directory(&parent.file, OsStr::new(&own))?;
        Ok(Self { parent: Arc::clone(parent), own, directory, made: Vec::new() })
    }

    /// Probes a name; returns the earlier name it clashes with.
    pub fn clash(&mut self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match entry::make_file(&self.directory, OsStr::from_bytes(name), 0o600) {
            Ok(_) => {
                self.made.push(name.to_vec());
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let status = |name: &[u8]| entry::status(&self.directory, OsStr::from_bytes(name));
                let taken = status(name)?;
                let same = self.made.iter().find(|other| status(other).is_ok_and(|status| status == taken));
                Ok(Some(same.cloned().unwrap_or_default()))
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Best effort: what remains is empty.
        for name in &self.made {
            let _ = entry::remove(&self.directory, OsStr::from_bytes(name));
        }
        let _ = entry::remove_directory(&self.parent.file, OsStr::new(&self.own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::Target;

    #[test]
    fn a_case_sensitive_file_system_needs_no_probe_and_a_clash_names_the_earlier_name() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Target::open(folder.path()).unwrap().directory;
        assert!(Trial::of_folding(&directory).unwrap().is_none());
        let mut trial = Trial::new(&directory).unwrap();
        assert_eq!(trial.clash(b"a").unwrap(), None);
        assert_eq!(trial.clash(b"A").unwrap(), None);
        // The same name twice, as a case-folding file system would see it.
        assert_eq!(trial.clash(b"a").unwrap(), Some(b"a".to_vec()));
        drop(trial);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
