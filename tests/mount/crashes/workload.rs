//! Writers and publishers that run until stopped, and a record of what was acknowledged to them.

use super::write_durably;
use crate::support::mounting::{Home, Mount};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Fsynced files: path below the mount, and the SHA-256 of the bytes.
pub type Kept = BTreeMap<PathBuf, [u8; 32]>;

/// A writer that fsyncs its files, and a publisher that keeps syncing.
pub struct Workload {
    stop: Arc<AtomicBool>,
    stop_publishing: Arc<AtomicBool>,
    written: Arc<Mutex<Kept>>,
    writer: Option<JoinHandle<()>>,
    publisher: Option<JoinHandle<()>>,
    command: Arc<Mutex<Option<Child>>>,
}

impl Workload {
    /// Starts writing into a tag.
    pub fn start(home: &Home, mount: &Mount<'_>, seed: u64, tag: &str) -> Self {
        let (stop, stop_publishing) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let written = Arc::new(Mutex::new(Kept::new()));
        let command = Arc::new(Mutex::new(None));
        let (root, directory) = (mount.root().to_owned(), PathBuf::from(tag));
        let writer = {
            let (stop, written, root) = (Arc::clone(&stop), Arc::clone(&written), root.clone());
            std::thread::spawn(move || write(&stop, &written, &root, &directory, seed))
        };
        let publisher = {
            let (stop, command) = (Arc::clone(&stop_publishing), Arc::clone(&command));
            let mut sync = home.ocifs(&["sync", root.to_str().unwrap()]);
            sync.stdout(Stdio::null()).stderr(Stdio::null());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(child) = sync.spawn() else { return };
                    *command.lock() = Some(child);
                    wait(&command);
                }
            })
        };
        Self { stop, stop_publishing, written, writer: Some(writer), publisher: Some(publisher), command }
    }

    /// Waits until the first file is durable: an earlier cut would prove nothing.
    pub fn wait_for_a_promise(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.written.lock().is_empty() {
            assert!(Instant::now() < deadline, "nothing was made durable");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts no further sync: one after the cut would publish what the cut left.
    pub fn stop_publishing(&self) {
        self.stop_publishing.store(true, Ordering::Relaxed);
    }

    /// Waits until writer and publisher have noticed the end, and adds the promised files to `kept`. There is at least one, unless the only file
    /// was just being rewritten.
    pub fn stop(&mut self, kept: &mut Kept) {
        self.stop_publishing();
        self.stop.store(true, Ordering::Relaxed);
        for thread in [self.writer.take(), self.publisher.take()].into_iter().flatten() {
            thread.join().unwrap();
        }
        kept.append(&mut self.written.lock());
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop_publishing();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(child) = self.command.lock().as_mut() {
            let _ = child.kill();
        }
    }
}

fn wait(command: &Mutex<Option<Child>>) {
    loop {
        let mut slot = command.lock();
        match slot.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => {}
            _ => {
                *slot = None;
                return;
            }
        }
        drop(slot);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Small files, an occasional larger one, and rewrites of existing files.
fn write(stop: &AtomicBool, written: &Mutex<Kept>, root: &Path, tag: &Path, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let _ = std::fs::create_dir_all(root.join(tag));
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let rewritten = random.random_range(0..4) == 0;
        let name = if rewritten { format!("again-{seed}-{}", number % 3) } else { format!("r{seed}-{number}") };
        let length = if random.random_range(0..10) == 0 { random.random_range(1..6_000_000) } else { random.random_range(0..20_000) };
        let mut bytes = vec![0; length];
        random.fill(&mut bytes[..]);
        let path = tag.join(name);
        // From here until the fsync returns, a rewritten file may be anything in between.
        written.lock().remove(&path);
        if write_durably(&root.join(&path), &bytes).is_err() {
            return;
        }
        written.lock().insert(path, Sha256::digest(&bytes).into());
    }
}
