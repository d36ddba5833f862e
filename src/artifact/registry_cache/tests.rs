//! The registry cache over an in-memory registry: requests, freshness, outages, offline use.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::artifact::ViewMode;
use crate::cache::{self, SpanCache};
use crate::oci::media_type;
use crate::registry::{Fault, Memory, RequestKind, Trust};

struct Rig {
    registry: Arc<Memory>,
    cache: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let registry = Arc::new(Memory::with_origin("https://reg.test", Trust::Transport));
        for name in ["v1", "v2"] {
            registry.add_artifact("team/app", name, (media_type::OCI_EMPTY, b"{}"), &[("a/b", name.as_bytes(), &[])], &[]);
        }
        Self { registry, cache: tempfile::tempdir().unwrap() }
    }

    fn cache(&self, lifetime: Duration, offline: bool) -> Arc<RegistryCache> {
        open(Arc::clone(&self.registry) as Arc<dyn Pull>, self.cache.path(), lifetime, offline)
    }

    /// Answers stay fresh forever.
    fn fresh(&self) -> Arc<RegistryCache> {
        self.cache(Duration::from_secs(1 << 30), false)
    }

    /// Answers are stale at once.
    fn stale(&self) -> Arc<RegistryCache> {
        self.cache(Duration::ZERO, false)
    }

    fn requests(&self) -> [usize; 4] {
        [RequestKind::Manifest, RequestKind::Resolve, RequestKind::Tags, RequestKind::Repositories].map(|kind| self.registry.count(kind))
    }

    fn cut(&self) {
        for kind in [RequestKind::Manifest, RequestKind::Resolve, RequestKind::Tags, RequestKind::Repositories, RequestKind::Referrers] {
            self.registry.plan(kind, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
        }
    }
}

fn open(pull: Arc<dyn Pull>, cache: &Path, tag_ttl: Duration, offline: bool) -> Arc<RegistryCache> {
    let cache = SpanCache::open(cache::Config { directory: cache.to_owned(), size: 1 << 30, min_free: 0 }).unwrap();
    let repositories = vec![Repository::parse("team/named").unwrap()];
    let platform = "linux/amd64".parse().unwrap();
    Arc::new(RegistryCache::new(
        pull,
        cache,
        Options {
            tag_ttl,
            platform,
            view: ViewMode::Merged,
            offline,
            strict: false,
            trust_referrers: false,
            access_order: false,
            repositories,
        },
    ))
}

fn app() -> Repository {
    Repository::parse("team/app").unwrap()
}

fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.names.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn the_first_use_of_a_tag_costs_a_get_and_later_ones_at_most_a_head() {
    let rig = Rig::new();
    let cache = rig.stale();
    let digest = cache.tag(&app(), &tag("v1")).await.unwrap();
    cache.manifest(&app(), &digest).await.unwrap();
    assert_eq!(rig.requests(), [1, 0, 0, 0]);
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), digest);
    assert_eq!(rig.requests(), [1, 1, 0, 0]);
    let fresh = rig.fresh();
    for _ in 0..3 {
        fresh.tag(&app(), &tag("v2")).await.unwrap();
    }
    assert_eq!(rig.requests(), [2, 1, 0, 0]);
}

#[tokio::test]
async fn concurrent_lookups_share_one_request() {
    let rig = Rig::new();
    let cache = rig.fresh();
    let (repository, name) = (app(), tag("v1"));
    let all = futures_util::future::join_all((0..32).map(|_| cache.tag(&repository, &name))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(rig.requests(), [1, 0, 0, 0]);
}

#[tokio::test]
async fn a_moved_tag_is_seen_after_its_ttl_or_a_refresh() {
    let rig = Rig::new();
    let cache = rig.fresh();
    let old = cache.tag(&app(), &tag("v1")).await.unwrap();
    let new = rig.registry.add_artifact("team/app", "v1", (media_type::OCI_EMPTY, b"{}"), &[("a/b", b"new", &[])], &[]);
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), old);
    cache.refresh(Some(&Repository::parse("team/other").unwrap()));
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), old);
    cache.refresh(Some(&app()));
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), new);
}

#[tokio::test]
async fn an_absent_tag_is_requested_once_and_again_after_a_refresh() {
    let rig = Rig::new();
    let cache = rig.fresh();
    cache.tags(&app()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(cache.tag(&app(), &tag("v9")).await.unwrap_err().kind, ErrorKind::NotFound);
    }
    assert_eq!(rig.requests(), [1, 0, 1, 0]);
    // The list lacks it and is fresh, but a list is never a negative answer.
    rig.registry.add_artifact("team/app", "v9", (media_type::OCI_EMPTY, b"{}"), &[], &[]);
    cache.refresh(None);
    cache.tag(&app(), &tag("v9")).await.unwrap();
}

#[tokio::test]
async fn while_the_registry_is_unreachable_the_last_known_answer_serves() {
    let rig = Rig::new();
    let cache = rig.stale();
    let digest = cache.tag(&app(), &tag("v1")).await.unwrap();
    assert_eq!(names(&cache.tags(&app()).await.unwrap()), ["v1", "v2"]);
    rig.cut();
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), digest);
    let listing = cache.tags(&app()).await.unwrap();
    assert_eq!((names(&listing), listing.complete), (vec!["v1", "v2"], false));
    // During an outage no lookup waits for another attempt, but unknown objects fail as such.
    let asked = rig.requests();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    assert_eq!(rig.requests(), asked);
    assert_eq!(cache.tag(&app(), &tag("v3")).await.unwrap_err().kind, ErrorKind::Unreachable);
    rig.registry.mend();
    cache.refresh(None);
    assert!(cache.tags(&app()).await.unwrap().complete);
}

#[tokio::test(start_paused = true)]
async fn cached_answers_are_used_without_waiting_for_a_hung_registry() {
    let rig = Rig::new();
    let cache = rig.stale();
    let digest = cache.tag(&app(), &tag("v1")).await.unwrap();
    for kind in [RequestKind::Resolve, RequestKind::Tags, RequestKind::Ping] {
        rig.registry.plan(kind, 0, 1000, Fault::Stall);
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), digest);
    // The first lookup finds out, which takes a moment; later ones do not wait at all.
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    let found_out = tokio::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), digest);
        assert_eq!(names(&cache.tags(&app()).await.unwrap()), ["v1"]);
    }
    assert_eq!((found_out.elapsed(), rig.requests()), (Duration::ZERO, [1, 1, 0, 0]));
    // The request continued meanwhile, and its answer is cached.
    let moved = rig.registry.add_artifact("team/app", "v1", (media_type::OCI_EMPTY, b"{}"), &[("a/b", b"new", &[])], &[]);
    rig.registry.mend();
    rig.registry.release();
    while cache.is_away() {
        tokio::task::yield_now().await;
    }
    assert_eq!((cache.last_tag(&app(), &tag("v1")), rig.requests()[1]), (Some(moved), 1));
}

#[tokio::test(start_paused = true)]
async fn a_long_list_may_arrive_page_by_page() {
    let rig = Rig::new();
    let digest = rig.registry.tagged("team/app")["v1"];
    (0..50).for_each(|number| rig.registry.tag("team/app", &format!("n{number:02}"), digest));
    rig.registry.set_page_size(5);
    let cache = rig.stale();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    rig.registry.plan(RequestKind::Tags, 0, 11, Fault::Delay(Duration::from_millis(1500)));
    let listing = cache.tags(&app()).await.unwrap();
    assert_eq!((listing.names.len(), listing.complete), (52, true));
}

#[tokio::test]
async fn any_unanswered_request_marks_an_outage_until_it_ends_or_expires() {
    let rig = Rig::new();
    let cache = rig.stale();
    let digest = cache.tag(&app(), &tag("v1")).await.unwrap();
    // Someone failed to read a blob.
    rig.registry.fall_silent();
    for _ in 0..3 {
        assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), digest);
    }
    assert_eq!(rig.requests(), [1, 0, 0, 0]);
    // Unknown tags are requested, and an answer ends the outage.
    cache.tag(&app(), &tag("v2")).await.unwrap();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    assert_eq!(rig.requests(), [2, 1, 0, 0]);
    rig.registry.fall_silent();
    cache.refresh(None);
    cache.tag(&app(), &tag("v1")).await.unwrap();
    assert_eq!(rig.requests(), [2, 2, 0, 0]);
}

#[test]
fn a_thread_outside_the_runtime_can_check_for_an_outage() {
    let rig = Rig::new();
    let cache = rig.fresh();
    cache.memory.lock().outage = outage::Outage::long_ago();
    assert!(cache.is_away() && cache.is_away());
    assert_eq!(rig.registry.count(RequestKind::Ping), 0);
    // The next call inside the runtime probes.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        while cache.is_away() {
            tokio::task::yield_now().await;
        }
    });
    // Whether a second probe starts before the first one's answer is seen depends on the threads.
    assert!(rig.registry.count(RequestKind::Ping) >= 1);
}

#[tokio::test]
async fn a_refusal_is_not_an_outage() {
    let rig = Rig::new();
    let cache = rig.stale();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    rig.registry.plan(RequestKind::Resolve, 0, 1, Fault::Error(ErrorKind::Denied));
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap_err().kind, ErrorKind::Denied);
}

#[tokio::test]
async fn answers_seen_once_are_available_offline_to_another_mount() {
    let rig = Rig::new();
    let cache = rig.fresh();
    let digest = cache.tag(&app(), &tag("v1")).await.unwrap();
    cache.tags(&app()).await.unwrap();
    cache.repositories().await.unwrap();
    cache.referrers(&app(), &digest).await.unwrap();
    cache.flush().await;
    rig.registry.forget_requests();
    let offline = rig.cache(Duration::ZERO, true);
    assert_eq!(offline.tag(&app(), &tag("v1")).await.unwrap(), digest);
    assert_eq!(offline.manifest(&app(), &digest).await.unwrap().digest, digest);
    assert_eq!(names(&offline.tags(&app()).await.unwrap()), ["v1", "v2"]);
    assert_eq!(names(&offline.repositories().await.unwrap()), ["team/app", "team/named"]);
    assert!(offline.referrers(&app(), &digest).await.unwrap().is_empty());
    assert_eq!(offline.tag(&app(), &tag("v2")).await.unwrap_err().kind, ErrorKind::Unreachable, "it is listed");
    assert_eq!(offline.tag(&app(), &tag("v3")).await.unwrap_err().kind, ErrorKind::NotFound);
    let named = Repository::parse("team/named").unwrap();
    assert_eq!(offline.tags(&named).await.unwrap_err().kind, ErrorKind::Unreachable, "it is listed");
    assert_eq!(offline.referrers(&app(), &Digest::of(b"x")).await.unwrap_err().kind, ErrorKind::Unreachable, "not known is not none");
    assert_eq!(offline.tags(&Repository::parse("x").unwrap()).await.unwrap_err().kind, ErrorKind::NotFound);
    assert!(rig.registry.requests().is_empty());
}

#[tokio::test]
async fn a_deleted_tag_is_forgotten_on_disk_too() {
    let rig = Rig::new();
    let cache = rig.stale();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    cache.tag(&app(), &tag("v2")).await.unwrap();
    rig.registry.untag("team/app", "v1");
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap_err().kind, ErrorKind::NotFound);
    cache.flush().await;
    let offline = rig.cache(Duration::ZERO, true);
    assert_eq!(offline.tag(&app(), &tag("v1")).await.unwrap_err().kind, ErrorKind::NotFound);
    offline.tag(&app(), &tag("v2")).await.unwrap();
}

#[tokio::test]
async fn registries_with_the_same_names_are_kept_apart() {
    let rig = Rig::new();
    rig.fresh().tag(&app(), &tag("v1")).await.unwrap();
    let other = Arc::new(Memory::with_origin("https://other.test", Trust::Transport));
    let offline = open(other, rig.cache.path(), Duration::ZERO, true);
    assert_eq!(offline.tag(&app(), &tag("v1")).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn lists_contain_all_pages_but_no_bookkeeping_tags_or_invalid_names() {
    let rig = Rig::new();
    let digest = rig.fresh().tag(&app(), &tag("v1")).await.unwrap();
    let hex = "0".repeat(64);
    for name in [format!("sha256-{hex}"), format!("sha256-{hex}.sig"), "bad name".to_owned(), "\u{1b}[31m".to_owned(), "../x".to_owned()] {
        rig.registry.tag("team/app", &name, digest);
    }
    for number in 0..50 {
        rig.registry.tag("team/app", &format!("n{number:02}"), digest);
    }
    rig.registry.set_page_size(7);
    let cache = rig.fresh();
    let listing = cache.tags(&app()).await.unwrap();
    assert_eq!((listing.names.len(), listing.complete), (52, true));
    assert!(listing.names.is_sorted());
    cache.tag(&app(), &tag(&format!("sha256-{hex}"))).await.unwrap();
}

#[tokio::test]
async fn a_registry_without_a_catalog_lists_known_names() {
    let rig = Rig::new();
    rig.registry.set_catalog(false);
    let cache = rig.fresh();
    let listing = cache.repositories().await.unwrap();
    assert_eq!((names(&listing), listing.complete), (vec!["team/named"], false));
    cache.tag(&app(), &tag("v1")).await.unwrap();
    cache.learned(&Repository::parse("teams/x").unwrap());
    let team = Repository::parse("team").unwrap();
    let listing = cache.repositories().await.unwrap();
    assert_eq!(listing.below(Some(&team)).collect::<Vec<_>>(), ["team/app", "team/named"]);
    assert_eq!((listing.below(None).count(), listing.has("teams/x"), listing.has("team")), (3, true, false));
    assert_eq!(rig.requests()[3], 1);
}

/// Asserts that two lookups get the same names, not equal ones.
async fn assert_shared(cache: &Arc<RegistryCache>, expected: &[&str]) {
    let (one, other) = (cache.repositories().await.unwrap(), cache.repositories().await.unwrap());
    assert_eq!(names(&one), expected);
    assert!(std::ptr::eq(&*one.names, &*other.names), "{expected:?} were copied");
}

#[tokio::test]
async fn known_repositories_are_shared_by_all_lookups_in_every_state() {
    let rig = Rig::new();
    let cache = rig.fresh();
    assert_shared(&cache, &["team/app"]).await;
    cache.flush().await;
    let other = Repository::parse("other").unwrap();
    for cache in [rig.cache(Duration::ZERO, true), rig.stale()] {
        rig.cut();
        assert_shared(&cache, &["team/app", "team/named"]).await;
        cache.learned(&other);
        assert_shared(&cache, &["other", "team/app", "team/named"]).await;
    }
    let rig = Rig::new();
    rig.registry.set_catalog(false);
    let cache = rig.fresh();
    assert_shared(&cache, &["team/named"]).await;
    cache.tag(&app(), &tag("v1")).await.unwrap();
    assert_shared(&cache, &["team/app", "team/named"]).await;
}

#[tokio::test]
async fn the_catalog_is_not_stored_again_for_a_repository_that_it_lists() {
    let rig = Rig::new();
    let cache = rig.fresh();
    cache.repositories().await.unwrap();
    cache.flush().await;
    cache.cache.forget_document("seen", &cache.key(&["catalog"])).unwrap();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    cache.flush().await;
    assert!(cache.document("seen", &["catalog"]).is_none());
    let new = Repository::parse("new").unwrap();
    cache.published(&new, &tag("v1"), cache.manifest(&app(), &cache.tag(&app(), &tag("v1")).await.unwrap()).await.unwrap());
    cache.flush().await;
    assert_eq!(names(&rig.cache(Duration::ZERO, true).repositories().await.unwrap()), ["new", "team/app", "team/named"]);
}

#[tokio::test]
async fn a_refused_catalog_does_not_erase_the_previous_list() {
    let rig = Rig::new();
    let cache = rig.stale();
    cache.repositories().await.unwrap();
    rig.registry.plan(RequestKind::Repositories, 0, 1, Fault::Error(ErrorKind::Denied));
    let listing = cache.repositories().await.unwrap();
    assert_eq!((names(&listing), listing.complete), (vec!["team/app", "team/named"], false));
    cache.flush().await;
    assert_eq!(names(&rig.cache(Duration::ZERO, true).repositories().await.unwrap()), ["team/app", "team/named"]);
}

#[tokio::test]
async fn during_an_outage_known_tags_are_listed_without_a_request() {
    let rig = Rig::new();
    let cache = rig.stale();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    rig.cut();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    let asked = rig.requests();
    assert_eq!(names(&cache.tags(&app()).await.unwrap()), ["v1"]);
    assert_eq!(rig.requests(), asked);
}

#[tokio::test]
async fn absent_names_take_no_memory() {
    let rig = Rig::new();
    let cache = rig.fresh();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    let before = cache.memory.lock().repositories_in_memory();
    for number in 0..20 {
        let nothing = Repository::parse(&format!("no/such{number}")).unwrap();
        assert_eq!(cache.tags(&nothing).await.unwrap_err().kind, ErrorKind::NotFound);
    }
    assert_eq!(cache.memory.lock().repositories_in_memory(), before);
}

#[tokio::test]
async fn an_unknown_repository_is_requested_once() {
    let rig = Rig::new();
    let cache = rig.fresh();
    let nothing = Repository::parse("no/such").unwrap();
    for _ in 0..3 {
        assert_eq!(cache.tags(&nothing).await.unwrap_err().kind, ErrorKind::NotFound);
    }
    assert_eq!(rig.requests(), [0, 0, 1, 0]);
}

#[tokio::test]
async fn an_unreadable_manifest_does_not_hide_its_tag() {
    let rig = Rig::new();
    rig.registry.plan(RequestKind::Manifest, 0, 1, Fault::Error(ErrorKind::Integrity));
    let cache = rig.fresh();
    cache.tag(&app(), &tag("v1")).await.unwrap();
    // The last request makes sure that the registry has what it names.
    assert_eq!(rig.requests(), [1, 2, 0, 0]);
}

#[tokio::test]
async fn a_digest_the_registry_names_but_lacks_is_an_error_not_absence() {
    let rig = Rig::new();
    rig.registry.plan(RequestKind::Manifest, 0, 1, Fault::Error(ErrorKind::Integrity));
    rig.registry.plan(RequestKind::Resolve, 1, 1, Fault::Error(ErrorKind::NotFound));
    assert_eq!(rig.fresh().tag(&app(), &tag("v1")).await.unwrap_err().kind, ErrorKind::Integrity);
    let cache = rig.fresh();
    assert_eq!(cache.named_manifest(&app(), &Digest::of(b"named")).await.unwrap_err().kind, ErrorKind::Gone);
    assert_eq!(cache.manifest(&app(), &Digest::of(b"asked for")).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_cached_manifest_with_wrong_bytes_is_fetched_again() {
    let rig = Rig::new();
    let cache = rig.fresh();
    let digest = cache.tag(&app(), &tag("v1")).await.unwrap();
    cache.flush().await;
    let key = Digest::of(format!("https://reg.test\nmanifest\nteam/app\n{digest}").as_bytes()).hex();
    cache.cache.store_document("manifest", &key, b"{}", &crate::cache::Protection::Plain).unwrap();
    assert_eq!(rig.fresh().manifest(&app(), &digest).await.unwrap().digest, digest);
    assert_eq!(rig.requests()[0], 2);
}

/// Polls a request until it waits for the registry, records a write meanwhile, and lets the registry answer.
async fn overtaken<T>(rig: &Rig, kind: RequestKind, question: impl Future<Output = T>, write: impl FnOnce()) -> T {
    use futures_util::FutureExt;
    rig.registry.plan(kind, 0, 1, Fault::Stall);
    let mut question = std::pin::pin!(question.fuse());
    let before = rig.registry.count(kind);
    while rig.registry.count(kind) == before {
        assert!(futures_util::poll!(&mut question).is_pending());
        tokio::task::yield_now().await;
    }
    write();
    rig.registry.release();
    question.await
}

#[tokio::test]
async fn a_late_answer_never_overrides_a_newer_write() {
    let rig = Rig::new();
    let cache = rig.fresh();
    let of_v2 = rig.registry.tagged("team/app")["v2"];
    let manifest = cache.manifest(&app(), &of_v2).await.unwrap();
    let publish = || cache.published(&app(), &tag("v1"), Arc::clone(&manifest));
    let answer = overtaken(&rig, RequestKind::Manifest, cache.tag(&app(), &tag("v1")), publish).await;
    assert_eq!(answer.unwrap(), of_v2);
    assert_eq!(cache.tag(&app(), &tag("v1")).await.unwrap(), of_v2);

    let rig = Rig::new();
    let cache = rig.fresh();
    let gone = overtaken(&rig, RequestKind::Manifest, cache.tag(&app(), &tag("v1")), || cache.deleted(&app(), &tag("v1"))).await;
    assert_eq!(gone.unwrap_err().kind, ErrorKind::NotFound);

    let rig = Rig::new();
    let cache = rig.fresh();
    let listed = overtaken(&rig, RequestKind::Tags, cache.tags(&app()), || {
        cache.published(&app(), &tag("new"), Arc::clone(&manifest));
        cache.deleted(&app(), &tag("v1"));
    })
    .await
    .unwrap();
    assert_eq!((names(&listed), listed.complete), (vec!["new", "v2"], false));
    // The next list is requested again.
    rig.registry.untag("team/app", "v1");
    assert_eq!(names(&cache.tags(&app()).await.unwrap()), ["v2"]);
}

#[tokio::test]
async fn a_newly_created_repository_overrides_a_cached_absence() {
    let rig = Rig::new();
    let cache = rig.fresh();
    let of_v1 = rig.registry.tagged("team/app")["v1"];
    let manifest = cache.manifest(&app(), &of_v1).await.unwrap();
    let new = Repository::parse("team/new").unwrap();
    cache.repositories().await.unwrap();
    assert_eq!(cache.tags(&new).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(cache.tag(&new, &tag("v1")).await.unwrap_err().kind, ErrorKind::NotFound);
    cache.published(&new, &tag("v1"), manifest);
    assert_eq!(cache.tag(&new, &tag("v1")).await.unwrap(), of_v1);
    assert!(cache.repositories().await.unwrap().names.contains(&"team/new".to_owned()));
    rig.registry.add_repository("team/new");
    rig.registry.tag("team/new", "v1", of_v1);
    assert_eq!(names(&cache.tags(&new).await.unwrap()), ["v1"]);
}

#[test]
fn unused_entries_are_forgotten() {
    let mut kept = Generations::new(2);
    for number in 0..2 {
        kept.insert(number, number, 1);
    }
    kept.insert(2, 2, 1);
    assert_eq!(kept.get(&0), Some(0));
    kept.insert(3, 3, 1);
    kept.insert(4, 4, 1);
    assert_eq!((kept.get(&1), kept.get(&0)), (None, Some(0)));
}
