//! A file system over a registry in memory, and paths walked as the kernel walks them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Caller, Config, Entry, FileSystem, Lookup, NewName, Others, ROOT, Root, Space, Writing};
use crate::artifact::{Artifacts, Kind, Options, ViewMode};
use crate::cache::{self, SpanCache};
use crate::content::{self, Contents};
use crate::error::{Error, ErrorKind};
use crate::layer::Metadata;
use crate::oci::{Digest, Platform, Repository, media_type};
use crate::publish::ArtifactKind;
use crate::registry::{Memory, Offline, Pull, RequestKind};
use crate::staging::Uppers;
use crate::view::{Authority, Defaults, Meaning, NewNode, Overlay, Replace, SetAttributes};

pub const DEFAULTS: Defaults =
    Defaults { uid: 1000, gid: 1000, time: (1_700_000_000, 0), force_uid: None, force_gid: None, file_mode: None, dir_mode: None };

/// One mount over one registry. The cache directory goes with it.
#[derive(Clone)]
pub struct TestMount {
    pub registry: Arc<Memory>,
    pub fs: Arc<FileSystem>,
    directory: Arc<tempfile::TempDir>,
}

/// The owner of files created in tests.
pub const CALLER: Caller = Caller { uid: 1000, gid: 1000 };

/// Settings a test may change.
pub struct Setup {
    pub root: Root,
    pub tag_ttl: Duration,
    pub repositories: Vec<&'static str>,
    pub offline: bool,
    pub view: ViewMode,
    pub platform: &'static str,
    pub strict: bool,
    pub kind: ArtifactKind,
    /// Whether a passphrase is available.
    pub encrypted: bool,
    /// Whether the mount is writable.
    pub writable: bool,
    pub allow_delete: bool,
    /// Limit on staged bytes.
    pub quota: Option<u64>,
    pub others: Others,
    pub skips_opens: bool,
    /// Whether the order of opens is remembered and followed.
    pub access_order: bool,
}

impl Setup {
    /// A writable mount of the whole registry.
    pub fn writable() -> Self {
        Self { writable: true, ..Self::default() }
    }
}

impl Default for Setup {
    fn default() -> Self {
        let tag_ttl = Duration::from_secs(3600);
        Self {
            root: Root::Prefix(None),
            tag_ttl,
            repositories: Vec::new(),
            offline: false,
            view: ViewMode::Merged,
            platform: "linux/amd64",
            strict: false,
            kind: ArtifactKind::Files,
            encrypted: false,
            writable: false,
            allow_delete: false,
            quota: None,
            others: Others::None,
            skips_opens: false,
            access_order: true,
        }
    }
}

pub fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

impl TestMount {
    /// A mount of the whole registry in which names and tags stay fresh.
    pub fn new(registry: Memory) -> Self {
        Self::with(registry, Setup::default())
    }

    /// A mount of a prefix.
    pub fn of_prefix(registry: Memory, prefix: &str) -> Self {
        Self::with(registry, Setup { root: Root::Prefix(Some(repository(prefix))), ..Setup::default() })
    }

    /// A mount whose directories are in memory if the system has a place for that.
    pub fn in_memory(registry: Memory, setup: Setup) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self::over(Arc::new(registry), Arc::new(directory), setup)
    }

    pub fn with(registry: Memory, setup: Setup) -> Self {
        Self::over(Arc::new(registry), Arc::new(tempfile::tempdir().unwrap()), setup)
    }

    /// A writable mount.
    pub fn writable(registry: Memory) -> Self {
        Self::with(registry, Setup::writable())
    }

    /// Another user's mount of the same registry, without cached state.
    pub fn with_shared(registry: Arc<Memory>) -> Self {
        Self::over(registry, Arc::new(tempfile::tempdir().unwrap()), Setup::default())
    }

    /// The cache.
    pub fn cache_directory(&self) -> std::path::PathBuf {
        self.directory.path().join("cache")
    }

    /// Where edits are staged.
    pub fn state_directory(&self) -> std::path::PathBuf {
        self.directory.path().join("state")
    }

    /// The registry, as staged edits name it.
    pub fn registry_origin(&self) -> String {
        use crate::registry::Pull;
        self.registry.origin().to_owned()
    }

    /// Reads through another mount without cached state.
    pub async fn elsewhere_at(&self, path: &str) -> String {
        Self::with_shared(Arc::clone(&self.registry)).text(path).await
    }

    /// The edits of a tag.
    pub async fn overlay(&self, of: &str, tag: &str) -> Arc<Overlay> {
        self.entry(&format!("{of}/{tag}")).await;
        let staged = self.fs.namespace.staged.tag(&repository(of), &crate::oci::Tag::parse(tag).unwrap()).unwrap();
        self.fs.tags.overlay_of(&staged).await.unwrap()
    }

    /// A second concurrent mount with the same cache and state directory.
    pub fn beside(&self, setup: Setup) -> Self {
        Self::over(Arc::clone(&self.registry), Arc::clone(&self.directory), setup)
    }

    /// A second mount with the cache directory of this one.
    pub fn again(self, setup: Setup) -> Self {
        let Self { registry, fs, directory } = self;
        drop(fs);
        Self::over(registry, directory, setup)
    }

    /// The same, once background work has released the last upper, as the end of a process does at once.
    pub async fn again_alone(self, setup: Setup) -> Self {
        let Self { registry, fs, directory } = self;
        drop(fs);
        let uppers = Uppers::open(&directory.path().join("state"), None).unwrap();
        let is_held = || uppers.list().unwrap().into_iter().any(|listed| listed.is_ok_and(|listed| listed.holder.is_some()));
        let ended = async {
            while is_held() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("an upper is never let go");
        Self::over(registry, directory, setup)
    }

    /// A second mount after this one ended and all content, but no document, was evicted.
    pub async fn after_eviction(self, setup: Setup) -> Self {
        self.fs.flush().await;
        let Self { registry, fs, directory } = self;
        drop(fs);
        std::fs::remove_dir_all(directory.path().join("cache/v2/streams")).unwrap();
        Self::over(registry, directory, setup)
    }

    /// The same mount, offline, with an empty cache.
    pub fn without_cache(self) -> Self {
        let Self { registry, fs, directory } = self;
        drop(fs);
        std::fs::remove_dir_all(directory.path().join("cache")).unwrap();
        Self::over(registry, directory, Setup { offline: true, ..Setup::writable() })
    }

    fn over(registry: Arc<Memory>, directory: Arc<tempfile::TempDir>, setup: Setup) -> Self {
        let cache = SpanCache::open(cache::Config { directory: directory.path().join("cache"), size: 1 << 30, min_free: 0 }).unwrap();
        let pull: Arc<dyn Pull> = if setup.offline { Arc::new(Offline::new(&*registry)) } else { registry.clone() };
        let contents = Contents::new(content::Config::new(Arc::clone(&pull), cache.clone()));
        let options = Options {
            tag_ttl: setup.tag_ttl,
            platform: setup.platform.parse::<Platform>().unwrap(),
            view: setup.view,
            offline: setup.offline,
            strict: setup.strict,
            trust_referrers: false,
            access_order: setup.access_order,
            repositories: setup.repositories.iter().map(|name| repository(name)).collect(),
        };
        let authority = match &setup.root {
            Root::Layout(_) => Authority::Layout("oci:/srv/layout".to_owned()),
            _ => Authority::Registry("reg.io".to_owned()),
        };
        let config = Config {
            root: setup.root,
            authority,
            defaults: DEFAULTS,
            meaning: Meaning {
                platform: options.platform.clone(),
                view: setup.view,
                strict: setup.strict,
                kind: setup.kind,
                allow_delete: setup.allow_delete,
                encrypted: setup.encrypted,
            },
            tag_ttl: setup.tag_ttl,
            mount_json: b"{\"mount\":true}\n".to_vec(),
            status_json: Arc::new(|| b"{\"status\":true}\n".to_vec()),
            others: setup.others,
            skips_opens: setup.skips_opens,
            writing: setup.writable.then(|| Writing {
                uppers: Arc::new(Uppers::open(&directory.path().join("state"), setup.quota).unwrap()),
                push: registry.clone(),
                concurrency: NonZeroUsize::MIN,
                plaintext: false,
                attach_index: true,
            }),
            space: Arc::new(|| Space { total: 1 << 30, free: 1 << 29 }),
        };
        let artifacts = Artifacts::new(pull, contents, cache, options);
        Self { registry, fs: Arc::new(FileSystem::new(config, artifacts).unwrap()), directory }
    }

    /// Looks a path up name by name, as the kernel does without a cache. Links are not followed.
    pub async fn lookup(&self, path: &str) -> Result<Lookup, Error> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let mut directory = ROOT;
        let mut found = Lookup::Absent(Duration::ZERO);
        for (place, name) in names.iter().enumerate() {
            found = self.fs.lookup(directory, name.as_bytes()).await?;
            match found {
                Lookup::Found(entry) => directory = entry.inode,
                Lookup::Absent(_) if place + 1 == names.len() => {}
                Lookup::Absent(_) => return Ok(found),
            }
        }
        Ok(found)
    }

    /// The entry that a path leads to.
    pub async fn entry(&self, path: &str) -> Entry {
        let found = self.lookup(path).await;
        found.as_ref().ok().and_then(|found| found.found()).unwrap_or_else(|| panic!("{path}: {found:?}"))
    }

    /// How long a path may be cached as absent.
    pub async fn absent(&self, path: &str) -> Duration {
        match self.lookup(path).await {
            Ok(Lookup::Absent(ttl)) => ttl,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Why a path cannot be looked up.
    pub async fn trouble(&self, path: &str) -> ErrorKind {
        match self.lookup(path).await {
            Err(error) => error.kind,
            Ok(found) => panic!("{path}: {found:?}"),
        }
    }

    async fn inode(&self, path: &str) -> u64 {
        if path.is_empty() { ROOT } else { self.entry(path).await.inode }
    }

    /// The names of a directory with their entries, without the dots.
    pub async fn list_entries(&self, path: &str) -> Result<Vec<(String, Entry)>, Error> {
        let handle = self.fs.opendir(self.inode(path).await).await?.handle;
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            let before = names.len();
            let mut room = 3;
            self.fs.readdirplus(handle, cookie, &mut |found| {
                if room == 0 {
                    return false;
                }
                room -= 1;
                cookie = found.cookie;
                names.push((String::from_utf8_lossy(found.name).into_owned(), found.entry));
                true
            })?;
            if names.len() == before {
                break;
            }
        }
        self.fs.releasedir(handle);
        Ok(names.into_iter().filter(|(name, _)| name != "." && name != "..").collect())
    }

    /// The names of a directory.
    pub async fn list(&self, path: &str) -> Vec<String> {
        let entries = self.list_entries(path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        entries.into_iter().map(|(name, _)| name).collect()
    }

    /// Why a directory cannot be listed.
    pub async fn list_trouble(&self, path: &str) -> ErrorKind {
        match self.list_entries(path).await {
            Err(error) => error.kind,
            Ok(names) => panic!("{path}: {:?}", names.iter().map(|(name, _)| name).collect::<Vec<_>>()),
        }
    }

    /// The bytes of a file.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let open = self.fs.open(self.inode(path).await, false).await?;
        let bytes = self.fs.read(open.handle, 0, 1 << 20).await.map(|bytes| bytes.to_vec());
        self.fs.release(open.handle);
        bytes
    }

    /// The bytes of a file as text.
    pub async fn text(&self, path: &str) -> String {
        let bytes = self.read(path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        String::from_utf8(bytes).unwrap()
    }

    /// The target of a link.
    pub async fn link(&self, path: &str) -> String {
        let entry = self.entry(path).await;
        assert_eq!(entry.attributes.kind, Kind::Symlink, "{path}");
        String::from_utf8(self.fs.readlink(entry.inode).unwrap()).unwrap()
    }

    /// An extended attribute.
    pub async fn xattr(&self, path: &str, name: &str) -> Option<String> {
        let value = self.fs.getxattr(self.inode(path).await, name.as_bytes()).await.unwrap();
        value.map(|value| String::from_utf8(value).unwrap())
    }

    /// The directory of a path, and its last name.
    pub async fn parent<'path>(&self, path: &'path str) -> (u64, &'path [u8]) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.inode(directory).await, name.as_bytes())
    }

    /// Creates something other than a regular file.
    pub async fn make(&self, path: &str, kind: Kind) -> Result<Entry, Error> {
        let (directory, name) = self.parent(path).await;
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let new = new_name(directory, name, kind, mode);
        self.fs.make(CALLER, new).await
    }

    /// `mkdir`.
    pub async fn mkdir(&self, path: &str) {
        self.make(path, Kind::Directory).await.unwrap_or_else(|error| panic!("mkdir {path}: {error}"));
    }

    /// Writes a whole file, creating it if missing.
    pub async fn write(&self, path: &str, text: &str) -> Result<(), Error> {
        let (directory, name) = self.parent(path).await;
        let handle = match self.fs.lookup(directory, name).await? {
            Lookup::Found(entry) => {
                let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
                let handle = self.fs.open(entry.inode, true).await?.handle;
                self.fs.setattr(CALLER, entry.inode, set).await?;
                handle
            }
            Lookup::Absent(_) => {
                let new = new_name(directory, name, Kind::File, 0o644);
                self.fs.create(CALLER, new, true).await?.1.handle
            }
        };
        let written = self.fs.write(handle, 0, text.as_bytes(), false).await;
        let reported = self.fs.close_report(handle);
        self.fs.release(handle);
        written.and(reported)
    }

    /// Writes a whole file; must succeed.
    pub async fn put(&self, path: &str, text: &str) {
        self.write(path, text).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// `rm` and `rmdir`.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        let entry = self.entry(path).await;
        let (directory, name) = self.parent(path).await;
        match entry.attributes.kind {
            Kind::Directory => self.fs.rmdir(directory, name).await,
            _ => self.fs.unlink(directory, name).await,
        }
    }

    /// `mv`.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.entry(from).await;
        let (from, to) = (self.parent(from).await, self.parent(to).await);
        self.fs.rename(from, to, Replace::Yes).await
    }

    /// Requests since the log was last cleared, by kind and object; clears it.
    pub fn requests(&self) -> Vec<(RequestKind, String)> {
        let log = self.registry.requests();
        self.registry.forget_requests();
        log.into_iter().map(|request| (request.kind, format!("{} {}", request.repository, request.object).trim().to_owned())).collect()
    }
}

/// Media type, bytes and annotations of a layer.
type Layer<'a> = (&'a str, &'a [u8], &'a [(&'a str, &'a str)]);

/// Adds an artifact of titled files.
pub fn add_files(registry: &Memory, repository: &str, tag: &str, files: &[(&str, &str)]) -> Digest {
    let titles: Vec<[(&str, &str); 1]> = files.iter().map(|(title, _)| [("org.opencontainers.image.title", *title)]).collect();
    let layers: Vec<Layer<'_>> =
        files.iter().zip(&titles).map(|((_, data), title)| ("text/plain", data.as_bytes(), title.as_slice())).collect();
    registry.add_artifact(repository, tag, (media_type::OCI_EMPTY, b"{}"), &layers, &[])
}

/// A name to create; a symlink leads to `target`.
pub fn new_name(directory: u64, name: &[u8], kind: Kind, mode: u32) -> NewName {
    let target = if kind == Kind::Symlink { b"target".to_vec() } else { Vec::new() };
    let metadata = Metadata { mode: Some(mode), ..Metadata::default() };
    NewName { directory, name: name.to_vec(), node: NewNode { kind, metadata, target } }
}
