//! Writes back the dirty pages of one file system.

use std::fs::File;
use std::io;

/// Writes all dirty pages of the file system that holds a directory to the device. Waits without a limit: call it from a thread that may be
/// abandoned.
///
/// # Errors
/// A write failed.
pub fn sync_file_system(directory: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_of_a_file_system_stands_for_it() {
        let directory = tempfile::tempdir().unwrap();
        sync_file_system(&File::open(directory.path()).unwrap()).unwrap();
        sync_file_system(&tempfile::tempfile().unwrap()).unwrap();
    }
}
