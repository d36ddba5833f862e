//! Many threads, several instances and several processes on one directory.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

use super::*;

/// Longer than any test.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Tells this test binary, started again, to act as the second process.
const AS_CHILD: &str = "OCIFS_CACHE_TEST_DIRECTORY";

/// Stores and reads random spans of three streams, and asserts that every answer is right. Returns (hits, stores).
fn churn(cache: &SpanCache, seed: u64, rounds: u64) -> (u64, u64) {
    let layout = even(24, 64 * KIB + 100);
    let streams: Vec<_> = (0..3).map(|number| cache.stream(&blob(number), &layout, &Protection::Plain).unwrap()).collect();
    let mut random = seed;
    let (mut hits, mut stores) = (0, 0);
    for _ in 0..rounds {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = (random >> 33) % 3;
        let span = ((random >> 40) % 24) as u32;
        let stream = &streams[number as usize];
        if (random >> 60).is_multiple_of(3) {
            stores += u64::from(store(stream, number, &layout, span));
        } else {
            hits += u64::from(check(stream, number, &layout, span));
        }
    }
    (hits, stores)
}

#[test]
fn readers_writers_and_evictors_of_two_instances_never_see_other_bytes() {
    let fixture = CacheFixture::new(2 * MIB);
    let caches = [fixture.open(), fixture.open()];
    let done = AtomicBool::new(false);
    let worst = AtomicU64::new(0);
    let results: Vec<_> = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut before = Vec::new();
            while !done.load(Ordering::Relaxed) {
                // Two looks that agree are one moment.
                let now = fixture.occupied_by_file();
                if now == before {
                    worst.fetch_max(now.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
                }
                before = now;
                std::thread::yield_now();
            }
        });
        let threads: Vec<_> = (0..6).map(|seed| (seed, &caches[seed as usize % 2])).collect();
        let threads: Vec<_> = threads.into_iter().map(|(seed, cache)| scope.spawn(move || churn(cache, seed, 700))).collect();
        let results = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        results
    });
    for result in results {
        let (hits, stores) = result.unwrap();
        assert!(hits > 0 && stores > 0);
    }
    assert!(worst.load(Ordering::Relaxed) <= fixture.size, "{} bytes at one time", worst.load(Ordering::Relaxed));
}

fn child(fixture: &CacheFixture, test: &str) -> Child {
    let exact = format!("cache::tests::racing::{test}");
    Command::new(std::env::current_exe().unwrap())
        .args([exact.as_str(), "--exact", "--nocapture"])
        .env(AS_CHILD, fixture.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The cache that a parent test created for this process.
fn parents_cache() -> Option<SpanCache> {
    let directory = std::env::var_os(AS_CHILD)?.into();
    Some(SpanCache::open(Config { directory, size: 2 * MIB, min_free: 0 }).unwrap())
}

/// Also run by the second process of the test below.
#[test]
fn one_process_alone_never_sees_other_bytes() {
    let fixture = CacheFixture::new(2 * MIB);
    let (hits, stores) = churn(&parents_cache().unwrap_or_else(|| fixture.open()), std::process::id().into(), 1_500);
    assert!(hits > 0 && stores > 0);
}

#[test]
fn two_processes_share_the_budget_and_never_see_other_bytes() {
    let fixture = CacheFixture::new(2 * MIB);
    let cache = fixture.open();
    let mut children =
        [child(&fixture, "one_process_alone_never_sees_other_bytes"), child(&fixture, "one_process_alone_never_sees_other_bytes")];
    let (hits, stores) = churn(&cache, 1, 1_500);
    assert!(hits > 0 && stores > 0);
    for child in &mut children {
        while child.try_wait().unwrap().is_none() {
            assert!(fixture.occupied() <= fixture.size);
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
    }
    assert!(fixture.occupied() <= fixture.size);
}

/// Also run by the process that is killed in the test below.
#[test]
fn an_unfinished_fill_and_a_claim_do_not_block_their_own_process() {
    let fixture = CacheFixture::new(2 * MIB);
    let parents = parents_cache();
    let cache = parents.clone().unwrap_or_else(|| fixture.open());
    let layout = even(24, 64 * KIB + 100);
    let mut unfinished = cache.fill(&blob(1), &Protection::Plain).unwrap();
    for span in 0..20 {
        assert!(unfinished.span(&bytes(1, span_range(&layout, span))).unwrap());
    }
    let _claim = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(cache.claim("claimed", PATIENCE, || ()))
        .unwrap();
    println!("\nREADY");
    let (_, stores) = churn(&cache, 5, 200);
    assert!(stores > 0);
    while parents.is_some() {
        churn(&cache, 5, 50);
    }
}

#[test]
fn a_killed_process_leaves_its_budget_and_its_claims_to_the_others() {
    let fixture = CacheFixture::new(2 * MIB);
    let cache = fixture.open();
    let mut child = child(&fixture, "an_unfinished_fill_and_a_claim_do_not_block_their_own_process");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with("READY")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let impatient = runtime.block_on(cache.claim("claimed", Duration::from_millis(30), || ())).unwrap();
    assert!(impatient.is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(runtime.block_on(cache.claim("claimed", PATIENCE, || ())).unwrap().is_some());
    let layout = even(24, 64 * KIB + 100);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for span in 0..24 {
        check(&stream, 1, &layout, span);
    }
    // Most of the budget belonged to the unfinished fill. It is available again.
    let wide = even(13, 128 * KIB);
    let stream = cache.stream(&blob(9), &wide, &Protection::Plain).unwrap();
    for span in 0..13 {
        assert!(store(&stream, 9, &wide, span));
        assert!(fixture.occupied() <= fixture.size);
    }
    assert!((0..13).all(|span| check(&stream, 9, &wide, span)));
}

#[test]
fn a_claim_excludes_tasks_and_instances_and_is_handed_on() {
    let fixture = CacheFixture::new(MIB);
    let (cache, other) = (fixture.open(), fixture.open());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let inside = AtomicU64::new(0);
        let work = |cache: SpanCache| {
            let inside = &inside;
            async move {
                let _claim = cache.claim("one", PATIENCE, || ()).await.unwrap().unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let all = (0..12).map(|number| work(if number % 2 == 0 { cache.clone() } else { other.clone() }));
        futures_util::future::join_all(all).await;
        let _one = cache.claim("one", PATIENCE, || ()).await.unwrap().unwrap();
        let _two = cache.claim("two", PATIENCE, || ()).await.unwrap().unwrap();
        for cache in [&cache, &other] {
            assert!(cache.claim("one", Duration::from_millis(20), || ()).await.unwrap().is_none());
        }
        drop(_one);
        assert!(other.claim("one", PATIENCE, || ()).await.unwrap().is_some());
    });
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_awaited_only_while_its_holder_makes_progress() {
    let fixture = CacheFixture::new(MIB);
    let (holder, other) = (fixture.open(), fixture.open());
    let held = holder.claim("one", PATIENCE, || ()).await.unwrap().unwrap();
    let patience = Duration::from_secs(10);
    for waiting in [&holder, &other] {
        let (begun, seen) = (tokio::time::Instant::now(), AtomicU64::new(0));
        let slow = async {
            for _ in 0..100 {
                tokio::time::sleep(patience / 2).await;
                // The progress of others says nothing about the holder.
                fixture.open().moved(1);
                holder.moved(1);
            }
        };
        let count = || {
            seen.fetch_add(1, Ordering::Relaxed);
        };
        let (claim, ()) = tokio::join!(waiting.claim("one", patience, count), slow);
        assert!(claim.unwrap().is_none() && seen.load(Ordering::Relaxed) == 100);
        let waited = begun.elapsed();
        assert!(waited > patience * 50 && waited < patience * 52, "{waited:?}");
    }
    // A free or released claim is granted at once.
    assert!(other.claim("two", Duration::ZERO, || ()).await.unwrap().is_some());
    let (claim, ()) = tokio::join!(other.claim("one", patience, || ()), async {
        tokio::time::sleep(patience / 2).await;
        drop(held);
    });
    assert!(claim.unwrap().is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Store(u8, u8),
    Read(u8, u8),
    Fill(u8, bool),
    Pin(u8),
    Unpin(u8),
    Clear,
    Forget(u8),
    Reopen,
}

fn steps() -> impl prop::strategy::Strategy<Value = Vec<Step>> {
    use prop::strategy::Strategy;
    let stream = 0..3_u8;
    let step = proptest::prop_oneof![
        8 => (stream.clone(), 0..12_u8).prop_map(|(stream, span)| Step::Store(stream, span)),
        8 => (stream.clone(), 0..12_u8).prop_map(|(stream, span)| Step::Read(stream, span)),
        2 => (stream.clone(), any::<bool>()).prop_map(|(stream, commit)| Step::Fill(stream, commit)),
        1 => stream.clone().prop_map(Step::Pin),
        1 => stream.clone().prop_map(Step::Unpin),
        1 => proptest::strategy::Just(Step::Clear),
        1 => stream.prop_map(Step::Forget),
        1 => proptest::strategy::Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// Streams with different layouts: small and large spans, a member.
fn cuts(number: u8) -> Layout {
    match number {
        0 => even(12, 30_000),
        1 => Layout::new((0..12).map(|span| span * span * 997).collect::<Vec<_>>(), 150_000, []),
        _ => {
            let members: Vec<_> = std::iter::once(1000..1_100_000).collect();
            Layout::new((0..12).map(|span| span * 100_000).collect::<Vec<_>>(), 1_200_001, members)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_the_budget_and_answers_right_bytes_or_none(steps in steps(), size in 200_000..1_500_000_u64) {
        let fixture = CacheFixture::new(size);
        let mut cache = fixture.open();
        let second = fixture.open();
        let mut pinned = [false; 3];
        let open = |cache: &SpanCache, number: u8| cache.stream(&blob(number.into()), &cuts(number), &Protection::Plain).unwrap();
        for (at, step) in steps.into_iter().enumerate() {
            let here = if at % 2 == 0 { &cache } else { &second };
            match step {
                Step::Store(number, span) => {
                    let stream = open(here, number);
                    let kept = store(&stream, number.into(), &cuts(number), span.into());
                    prop_assert!(!kept || check(&stream, number.into(), &cuts(number), span.into()));
                }
                Step::Read(number, span) => {
                    check(&open(here, number), number.into(), &cuts(number), span.into());
                }
                Step::Fill(number, true) => {
                    let kept = fill(here, number.into(), &cuts(number), &Protection::Plain);
                    let stream = open(&second, number);
                    for (span, kept) in kept.into_iter().enumerate() {
                        prop_assert!(check(&stream, number.into(), &cuts(number), span as u32) == kept);
                    }
                }
                Step::Fill(number, false) => {
                    fill_spans(&mut here.fill(&blob(number.into()), &Protection::Plain).unwrap(), number.into(), &cuts(number));
                }
                Step::Pin(number) => {
                    here.pin(&number.to_string(), &[blob(number.into())]).unwrap();
                    pinned[usize::from(number)] = true;
                }
                Step::Unpin(number) => {
                    prop_assert!(here.unpin(&number.to_string()).unwrap() == pinned[usize::from(number)]);
                    pinned[usize::from(number)] = false;
                }
                Step::Clear => here.clear(false).unwrap(),
                Step::Forget(number) => here.forget_stream(&blob(number.into())).unwrap(),
                Step::Reopen => cache = fixture.open(),
            }
            prop_assert!(fixture.occupied() <= size, "{} of {size}", fixture.occupied());
        }
        prop_assert!(second.verify().unwrap().1 == 0);
    }
}
