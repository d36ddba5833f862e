//! A registry in memory, edited tags in a state directory, and readers with a shared or an empty cache.

mod edited;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{ArtifactKind, Authority, Context, Defaults, Meaning, Overlay};
use crate::artifact::{Artifact, Artifacts, Options, ViewMode};
use crate::cache::{self, SpanCache};
use crate::content::{self, Contents, KeyRing, PassphraseSource};
use crate::oci::{Digest, Repository};
use crate::registry::{Memory, Trust};
use crate::seal::Passphrase;
use crate::staging::{Binding, TagKey, Uppers};

pub const DEFAULTS: Defaults =
    Defaults { uid: 1000, gid: 1000, time: (1_700_000_000, 0), force_uid: None, force_gid: None, file_mode: None, dir_mode: None };

/// Tags of one repository.
pub struct TagFixture {
    pub registry: Arc<Memory>,
    pub context: Arc<Context>,
    pub uppers: Arc<Uppers>,
    passphrase: Option<&'static str>,
    directory: tempfile::TempDir,
}

pub fn repository() -> Repository {
    Repository::parse("app").unwrap()
}

pub fn tag_key(tag: &str) -> TagKey {
    TagKey { origin: "https://reg.test".to_owned(), authority: "reg.test".to_owned(), repository: "app".to_owned(), tag: tag.to_owned() }
}

fn keys(passphrase: Option<&'static str>) -> KeyRing {
    let source = |text: &'static str| -> Arc<dyn PassphraseSource> {
        Arc::new(move || Ok::<_, String>(Some(Passphrase::new(text.as_bytes().to_vec()))))
    };
    KeyRing::new(passphrase.into_iter().map(source).collect())
}

fn context(registry: &Arc<Memory>, cache: &Path, passphrase: Option<&'static str>, staging: Option<Arc<Uppers>>) -> Context {
    let cache = SpanCache::open(cache::Config { directory: cache.to_path_buf(), size: 1 << 30, min_free: 0 }).unwrap();
    let pull: Arc<Memory> = Arc::clone(registry);
    let contents = Contents::new(content::Config { keys: keys(passphrase), ..content::Config::new(pull.clone(), cache.clone()) });
    let options = Options {
        tag_ttl: Duration::from_secs(3600),
        platform: "linux/amd64".parse().unwrap(),
        view: ViewMode::Merged,
        offline: false,
        strict: false,
        trust_referrers: false,
        access_order: true,
        repositories: Vec::new(),
    };
    Context {
        artifacts: Artifacts::new(pull, contents, cache, options),
        meaning: Meaning {
            platform: "linux/amd64".parse().unwrap(),
            view: ViewMode::Merged,
            strict: false,
            kind: ArtifactKind::Files,
            allow_delete: false,
            encrypted: false,
        },
        defaults: DEFAULTS,
        authority: Authority::Registry("reg.test".to_owned()),
        tag_ttl: Duration::from_secs(3600),
        staging,
    }
}

impl TagFixture {
    pub fn new() -> Self {
        Self::with_passphrase(None)
    }

    pub fn with_passphrase(passphrase: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = Arc::new(Memory::with_origin("https://reg.test", Trust::Transport));
        let uppers = Arc::new(Uppers::open(&directory.path().join("state"), None).unwrap());
        let context = Arc::new(context(&registry, &directory.path().join("cache"), passphrase, Some(Arc::clone(&uppers))));
        Self { registry, context, uppers, passphrase, directory }
    }

    /// The state directory.
    pub fn state(&self) -> std::path::PathBuf {
        self.directory.path().join("state")
    }

    /// The cache directory.
    pub fn cache(&self) -> std::path::PathBuf {
        self.directory.path().join("cache")
    }

    /// Evicts the content of an artifact, and no document.
    pub fn forget_content(&self, artifact: &Artifact) {
        let cache = SpanCache::open(cache::Config { directory: self.cache(), size: 1 << 30, min_free: 0 }).unwrap();
        for source in artifact.sources() {
            content::stream_keys(source).iter().for_each(|key| cache.forget_stream(key).unwrap());
        }
    }

    /// The next process, with empty memory and the same cache.
    pub async fn restart(&mut self) {
        self.context.artifacts.flush().await;
        let cache = self.directory.path().join("cache");
        self.context = Arc::new(context(&self.registry, &cache, self.passphrase, Some(Arc::clone(&self.uppers))));
    }

    /// Empties the cache.
    pub fn clear_cache(&self) {
        let cache = self.directory.path().join("cache");
        SpanCache::open(cache::Config { directory: cache, size: 1 << 30, min_free: 0 }).unwrap().clear(true).unwrap();
    }

    pub async fn artifact(&self, digest: &Digest) -> Arc<Artifact> {
        self.context.artifacts.artifact(&repository(), digest, ViewMode::Merged, false).await.unwrap()
    }

    /// An artifact as seen by a reader with an empty cache.
    pub async fn elsewhere(&self, digest: &Digest) -> (Arc<Artifact>, Context, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let context = context(&self.registry, &directory.path().join("cache"), self.passphrase, None);
        let artifact = context.artifacts.artifact(&repository(), digest, ViewMode::Merged, false).await.unwrap();
        (artifact, context, directory)
    }

    /// A tag that began empty.
    pub async fn empty(&self, tag: &str) -> Arc<Overlay> {
        self.begin(tag, Binding::default()).await
    }

    /// A tag that began with an artifact.
    pub async fn over(&self, tag: &str, digest: Digest) -> Arc<Overlay> {
        self.begin(tag, Binding { under: Some(digest), expected: Some(digest), deleted: false }).await
    }

    pub async fn begin(&self, tag: &str, binding: Binding) -> Arc<Overlay> {
        self.begin_at(&tag_key(tag), binding).await
    }

    pub async fn begin_at(&self, tag_key: &TagKey, binding: Binding) -> Arc<Overlay> {
        let upper = self.uppers.create(tag_key, binding, None).unwrap();
        Overlay::open(&self.context, upper).await.unwrap()
    }

    /// The tag as the next process finds it.
    pub async fn again(&self, overlay: Arc<Overlay>) -> Arc<Overlay> {
        let tag_key = overlay.tag_key();
        drop(overlay);
        let upper = loop {
            // A stopped publish may still be exiting on another thread.
            match self.uppers.find(&tag_key) {
                Ok(upper) => break upper.expect("the upper is there"),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        Overlay::open(&self.context, upper).await.unwrap()
    }
}
