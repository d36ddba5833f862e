//! Power cuts of the cache's disk: only documents are synced, so anything else may be lost or torn, yet every later answer is right.
//!
//! The process that fills the cache is this test binary, started again for a single test that runs only if the environment names a directory.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};

use super::*;
use crate::durable::disk::Disk;

/// Where a child works, and its random seed.
const WORK: &str = "OCIFS_TEST_CACHE_WORK";
const SEED: &str = "OCIFS_TEST_CACHE_SEED";
/// Streams and documents, more than fit.
const OBJECTS: u64 = 12;
const CHILD: &str = "cache::tests::power::a_child_fills_a_cache_only_where_it_is_told_to";

fn open(directory: &Path) -> SpanCache {
    SpanCache::open(Config { directory: directory.join("cache"), size: 8 * MIB, min_free: 0 }).unwrap()
}

fn layout() -> Layout {
    let members: Arc<[Range<u64>]> = std::iter::once(100_000..100_000 + MIB).collect();
    Layout::new((0..12).map(|span| span * 130_000).collect::<Vec<_>>(), 1_500_000, members)
}

fn document(number: u64) -> (String, Vec<u8>) {
    (format!("document-{number}"), bytes(1000 + number, 0..number * 5000))
}

/// One random step: evictions, replacements and first passes all occur, since the budget is small.
fn step(cache: &SpanCache, random: &mut rand::rngs::StdRng) {
    let (number, layout) = (random.random_range(0..OBJECTS), layout());
    match random.random_range(0..10) {
        0..2 => drop(fill(cache, number, &layout, &Protection::Plain)),
        2..4 => {
            let (key, content) = document(number);
            cache.store_document("tree", &key, &content, &Protection::Plain).unwrap();
        }
        4 => cache.forget_stream(&blob(number)).unwrap(),
        _ => {
            let stream = cache.stream(&blob(number), &layout, &Protection::Plain).unwrap();
            for span in 0..layout.count() {
                if !check(&stream, number, &layout, span) {
                    store(&stream, number, &layout, span);
                }
            }
        }
    }
}

/// Checks that everything present has the right bytes. Returns the number of spans and documents.
fn read_all(cache: &SpanCache) -> usize {
    let mut found = 0;
    for number in 0..OBJECTS {
        let stream = cache.stream(&blob(number), &layout(), &Protection::Plain).unwrap();
        found += (0..12).filter(|span| check(&stream, number, &layout(), *span)).count();
        let (key, content) = document(number);
        if let Some(there) = cache.document("tree", &key, &Protection::Plain).unwrap() {
            assert!((*there).as_ref() == content, "{key} has other bytes");
            found += 1;
        }
    }
    found
}

#[test]
fn a_child_fills_a_cache_only_where_it_is_told_to() {
    let Some(directory) = std::env::var_os(WORK) else { return };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let cache = open(Path::new(&directory));
    loop {
        step(&cache, &mut random);
        writeln!(std::io::stdout(), "step").unwrap();
    }
}

#[test]
fn after_a_power_cut_a_cached_read_is_right_or_a_miss() {
    let Some(disk) = Disk::new() else { return };
    let rounds: u64 = std::env::var("OCIFS_TEST_POWER_CUTS").map_or(4, |text| text.parse().unwrap());
    let mut kept = 0;
    for round in 0..rounds {
        let mut random = rand::rngs::StdRng::seed_from_u64(round);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .env(WORK, disk.path())
            .env(SEED, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let steps = random.random_range(1..60);
        assert_eq!(lines.by_ref().filter(|line| line.as_ref().is_ok_and(|line| line.ends_with("step"))).take(steps).count(), steps);
        // Some rounds give the kernel time to write part of it.
        if round % 2 == 1 {
            Command::new("sync").arg("--file-system").arg(disk.path()).status().unwrap();
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        disk.cut_power();
        child.kill().unwrap();
        child.wait().unwrap();
        disk.restore_power();
        let cache = open(&disk.path());
        kept += read_all(&cache);
        // Content stored now is found, whatever was lost.
        for number in 0..3 {
            fill(&cache, number, &layout(), &Protection::Plain);
            let (key, content) = document(number);
            cache.store_document("tree", &key, &content, &Protection::Plain).unwrap();
        }
        read_all(&cache);
        assert_eq!(cache.verify().unwrap().1, 0, "round {round}");
    }
    assert!(kept > 0, "no cut left anything to read");
}
