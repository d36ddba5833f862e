//! Kills a process that changes an upper at random moments: acknowledged changes survive.
//!
//! The process is this test binary, started again for a single test that runs only if the environment names a directory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rand::{Rng, RngExt, SeedableRng};

use super::layers::fill;
use super::*;
use crate::durable::disk::Disk;

/// Where a child holds an upper until it is killed.
pub const HOLD: &str = "OCIFS_TEST_STAGING_HOLD";
/// Where a child works, and its first step.
const WORK: &str = "OCIFS_TEST_STAGING_WORK";
const FROM: &str = "OCIFS_TEST_STAGING_FROM";

/// Whether it syncs bytes before a node refers to them.
const SYNCED: &str = "OCIFS_TEST_STAGING_SYNCED";

/// The files in the root by name: content and an attribute.
type State = BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

/// One step, the same for the child and for the model.
enum Step {
    Write(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
    Mark(Vec<u8>, Vec<u8>),
    /// One byte at an offset, and whether to write it while a generation is frozen, which is then committed.
    Patch(Vec<u8>, u64, u8, bool),
    Cut(Vec<u8>, u64),
    Fill,
    Sync,
    Commit,
}

/// The step with a number. `whole`: bytes are written once, and synced before a node refers to them.
fn step(number: u64, whole: bool) -> Step {
    let mut random = rand::rngs::StdRng::seed_from_u64(number);
    let name = |random: &mut rand::rngs::StdRng| format!("name-{}", random.random_range(0..40)).into_bytes();
    match random.random_range(0..if whole { 20 } else { 34 }) {
        0..8 => {
            let length = random.random_range(0..20_000);
            let byte = random.next_u32().to_be_bytes()[0];
            Step::Write(name(&mut random), vec![byte; length])
        }
        8..11 => Step::Remove(name(&mut random)),
        11..14 => Step::Rename(name(&mut random), name(&mut random)),
        14..17 => Step::Mark(name(&mut random), number.to_be_bytes().to_vec()),
        17..19 => Step::Sync,
        19 => Step::Commit,
        20..28 => {
            let name = name(&mut random);
            Step::Patch(name, random.random_range(0..25_000), random.random(), random.random_range(0..4) == 0)
        }
        28..32 => {
            let name = name(&mut random);
            Step::Cut(name, random.random_range(0..25_000))
        }
        _ => Step::Fill,
    }
}

fn apply(state: &mut State, step: &Step) {
    match step {
        Step::Write(name, bytes) => {
            state.insert(name.clone(), (bytes.clone(), Vec::new()));
        }
        Step::Remove(name) => {
            state.remove(name);
        }
        Step::Rename(from, to) => {
            if let Some(entry) = state.remove(from) {
                state.insert(to.clone(), entry);
            }
        }
        Step::Mark(name, value) => {
            if let Some(entry) = state.get_mut(name) {
                entry.1.clone_from(value);
            }
        }
        Step::Patch(name, at, byte, _) => {
            if let Some((bytes, _)) = state.get_mut(name) {
                let at = usize::try_from(*at).unwrap();
                bytes.resize(bytes.len().max(at + 1), 0);
                bytes[at] = *byte;
            }
        }
        Step::Cut(name, length) => {
            if let Some((bytes, _)) = state.get_mut(name) {
                bytes.resize(usize::try_from(*length).unwrap(), 0);
            }
        }
        Step::Fill | Step::Sync | Step::Commit => {}
    }
}

/// A writable file for a name, created over the existing one if that is fixed.
fn writable(upper: &Upper, name: &[u8]) -> Result<Option<DataFile>, Error> {
    let Some(key) = node_of(upper.rows(), name)? else { return Ok(None) };
    Ok(match upper.rows().node(key)?.map(|node| node.content) {
        Some(Content::Data(id)) => match upper.data(id)? {
            data if data.is_fixed() => Some(lay(upper, key, Below::Data(data))),
            data => Some(data),
        },
        Some(Content::Tree(tree)) => Some(lay(upper, key, Below::Tree(tree))),
        Some(Content::None) | None => None,
    })
}

fn patch(upper: &Upper, name: &[u8], at: u64, byte: u8) -> Result<(), Error> {
    writable(upper, name)?.map_or(Ok(()), |data| data.write_at(at, &[byte]))
}

/// Commits a generation. Clean files then refer to a tree; here the "tree" stores the whole content as the node's path, so that it can be read and
/// compared.
fn commit_all(upper: &Upper, frozen: FrozenUpper) -> Result<(), Error> {
    upper.set_journal(Some(&Journal { generation: frozen.generation(), expected: None, digest: digest(7).to_string() }))?;
    let mut references = Vec::new();
    for (key, node) in frozen.rows().nodes(None, usize::MAX)? {
        if let Content::Data(id) = node.content {
            let path = read(&frozen.rows().open_data(id)?);
            references.push((key, TreeNode { size: path.len() as u64, path, ..tree_node(1) }));
        }
    }
    commit(upper, frozen, digest(7), &mut references.into_iter(), &|id| id % 5 == 0).map(|_| ())
}

fn node_of(rows: &dyn Rows, name: &[u8]) -> Result<Option<NodeKey>, Error> {
    Ok(match rows.name(0, name)? {
        Some(Named::Node(key)) => Some(key),
        Some(Named::Whiteout) | None => None,
    })
}

fn perform(upper: &Upper, step: &Step) -> Result<(), Error> {
    match step {
        Step::Write(name, bytes) => {
            let data = upper.new_data()?;
            data.write_at(0, bytes)?;
            if std::env::var_os(SYNCED).is_some() {
                data.sync()?;
            }
            upper.change(|change| {
                if let Some(old) = node_of(change.rows(), name)? {
                    change.drop_node(old)?;
                }
                let key = change.add_node(&file(Content::Data(data.id())))?;
                change.put_name(0, name, Named::Node(key))
            })
        }
        Step::Remove(name) => upper.change(|change| {
            if let Some(old) = node_of(change.rows(), name)? {
                change.drop_node(old)?;
                change.drop_name(0, name)?;
            }
            Ok(())
        }),
        Step::Rename(from, to) => upper.change(|change| {
            let Some(key) = node_of(change.rows(), from)? else { return Ok(()) };
            if let Some(old) = node_of(change.rows(), to)?.filter(|old| *old != key) {
                change.drop_node(old)?;
            }
            change.drop_name(0, from)?;
            change.put_name(0, to, Named::Node(key))
        }),
        Step::Mark(name, value) => upper.change(|change| {
            let Some(key) = node_of(change.rows(), name)? else { return Ok(()) };
            change.put_xattr(key, b"user.mark", Some(value))
        }),
        Step::Sync => upper.sync(),
        Step::Patch(name, at, byte, is_late) => {
            let frozen = if *is_late { Some(upper.freeze()?) } else { None };
            patch(upper, name, *at, *byte)?;
            frozen.map_or(Ok(()), |frozen| commit_all(upper, frozen))
        }
        Step::Cut(name, length) => writable(upper, name)?.map_or(Ok(()), |data| data.set_length(*length)),
        Step::Fill => {
            for id in upper.partial() {
                fill(&upper.data(id)?);
            }
            Ok(())
        }
        Step::Commit => commit_all(upper, upper.freeze()?),
    }
}

fn observe(upper: &Upper) -> State {
    let rows = upper.rows();
    let names = rows.names(0, 0, usize::MAX).unwrap();
    let entry = |row: NameRow| {
        let Named::Node(key) = row.named else { panic!("an unexpected whiteout") };
        let bytes = match rows.node(key).unwrap().unwrap().content {
            Content::Data(id) => contents(upper, id),
            Content::Tree(tree) => tree.path,
            Content::None => panic!("a file without content"),
        };
        let mark = rows.xattrs(key).unwrap().pop().map_or_else(Vec::new, |(_, value)| value);
        (row.name, (bytes, mark))
    };
    names.into_iter().map(entry).collect()
}

#[test]
fn a_child_works_only_where_it_is_told_to() {
    let mut out = std::io::stdout();
    if let Some(directory) = std::env::var_os(HOLD) {
        let _upper = again(&open(&PathBuf::from(directory)));
        writeln!(out, "held").unwrap();
        loop {
            std::thread::park();
        }
    }
    let Some(directory) = std::env::var_os(WORK) else { return };
    let from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    let upper = again(&open(&PathBuf::from(directory)));
    writeln!(out, "begun").unwrap();
    for number in from.. {
        perform(&upper, &step(number, std::env::var_os(SYNCED).is_some())).unwrap();
        // Only a complete line is an acknowledgement.
        writeln!(out, "{number} done").unwrap();
        out.flush().unwrap();
    }
}

/// Runs a child from a step on and kills it after about this many. Returns the first unacknowledged step.
fn run_child(directory: &Path, from: u64, random: &mut rand::rngs::StdRng) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "staging::tests::crash::a_child_works_only_where_it_is_told_to", "--nocapture"])
        .env(WORK, directory)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let kill_after = random.random_range(0..60);
    let mut next = from;
    let mut acknowledge = |line: String| {
        if let Some(number) = line.strip_suffix(" done").and_then(|number| number.parse::<u64>().ok()) {
            assert_eq!(number, next, "steps are acknowledged in their order");
            next = number + 1;
        }
        next
    };
    // A random delay moves the kill away from the moment after an acknowledgement.
    for line in lines.by_ref() {
        if acknowledge(line.unwrap()) >= from + kill_after {
            for turn in 0..random.random_range(0..200_000) {
                std::hint::black_box(turn);
            }
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Output from before its death counts.
    for line in lines {
        acknowledge(line.unwrap());
    }
    next
}

#[test]
fn a_process_killed_at_any_moment_loses_nothing_acknowledged() {
    let rounds: u64 = std::env::var("OCIFS_TEST_KILLS").map_or(12, |text| text.parse().unwrap());
    let (directory, uppers, upper) = begin();
    drop((upper, uppers));
    let mut random = rand::rngs::StdRng::seed_from_u64(rounds);
    let (mut next, mut model) = (0, State::new());
    for round in 0..rounds {
        let reached = run_child(directory.path(), next, &mut random);
        for number in next..reached {
            apply(&mut model, &step(number, false));
        }
        next = reached;
        let uppers = open(directory.path());
        let upper = again(&uppers);
        let found = observe(&upper);
        // The step in progress happened or did not.
        let mut after = model.clone();
        apply(&mut after, &step(next, false));
        assert!(found == model || found == after, "round {round}, step {next}");
        if found != model {
            model = after;
            next += 1;
        }
        let staged = upper.rows().nodes(None, usize::MAX).unwrap();
        let mut data = std::collections::BTreeSet::new();
        for (_, node) in &staged {
            let mut at = if let Content::Data(id) = node.content { Some(id) } else { None };
            while let Some(id) = at.filter(|id| data.insert(*id)) {
                at = upper.data(id).unwrap().below().unwrap();
            }
        }
        assert_eq!(data_files(directory.path()).len(), data.len(), "nothing is left that no node refers to");
        assert_eq!(staged.len(), model.len());
    }
}

#[test]
fn a_power_cut_leaves_everything_up_to_the_last_sync_and_no_half_step() {
    let Some(disk) = Disk::new() else { return };
    let rounds: u64 = std::env::var("OCIFS_TEST_POWER_CUTS").map_or(3, |text| text.parse().unwrap());
    drop(open(&disk.path()).create(&tag_key("v1"), bound(), None).unwrap());
    let mut random = rand::rngs::StdRng::seed_from_u64(rounds);
    let (mut next, mut model) = (0, State::new());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "staging::tests::crash::a_child_works_only_where_it_is_told_to", "--nocapture"])
            .env(WORK, disk.path())
            .env(FROM, next.to_string())
            .env(SYNCED, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut acknowledged, mut synced) = (next, next);
        let cut_after = next + random.random_range(1..80);
        // The pipe stays open until the child is dead: it must not end in any other way.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap();
            let Some(number) = line.strip_suffix(" done").and_then(|number| number.parse::<u64>().ok()) else { continue };
            acknowledged = number + 1;
            if matches!(step(number, true), Step::Sync | Step::Commit) {
                synced = acknowledged;
            }
            if acknowledged >= cut_after {
                break;
            }
        }
        disk.cut_power();
        child.kill().unwrap();
        child.wait().unwrap();
        disk.restore_power();
        let found = observe(&again(&open(&disk.path())));
        // Steps after the last one read may also be done and synced: as many as a fast child does before the cut.
        let mut reached = next;
        while reached < synced || model != found {
            assert!(reached < acknowledged + 20_000, "round {round}: no state since step {synced} of {acknowledged}");
            apply(&mut model, &step(reached, true));
            reached += 1;
        }
        next = reached;
    }
}

#[test]
fn a_power_cut_makes_exactly_the_unsynced_files_suspect() {
    let Some(disk) = Disk::new() else { return };
    let uppers = open(&disk.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let (_, synced) = add(&upper, b"synced", b"kept");
    let (key, again_written) = add(&upper, b"written again", b"before");
    for id in [synced, again_written] {
        upper.data(id).unwrap().sync().unwrap();
    }
    upper.sync().unwrap();
    let (_, lost) = add(&upper, b"lost", &[7; 10_000]);
    upper.data(again_written).unwrap().write_at(0, b"after").unwrap();
    upper.sync().unwrap();
    // A killed process loses nothing, so nothing becomes a suspect.
    drop(upper);
    let upper = again(&uppers);
    assert!(upper.suspects().is_empty());
    disk.cut_power();
    drop(upper);
    disk.restore_power();
    let upper = again(&uppers);
    assert_eq!(upper.suspects().into_iter().collect::<Vec<_>>(), [again_written, lost]);
    assert_eq!(upper.suspect_names().unwrap(), [b"written again".to_vec(), b"lost".to_vec()]);
    assert_eq!(contents(&upper, synced), b"kept");
    // It stays that way until none of their bytes are left.
    drop(upper);
    let upper = again(&uppers);
    assert_eq!(upper.suspects().len(), 2);
    upper.data(lost).unwrap().set_length(0).unwrap();
    upper.change(|change| change.drop_node(key)).unwrap();
    upper.sync().unwrap();
    assert!(upper.suspects().is_empty());
    drop(upper);
    assert!(again(&uppers).suspects().is_empty());
}

#[test]
fn bytes_synced_at_the_end_of_a_mount_are_not_suspected_later() {
    let Some(disk) = Disk::new() else { return };
    let uppers = open(&disk.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let (_, id) = add(&upper, b"a", &[7; 10_000]);
    upper.sync_all().unwrap();
    drop(upper);
    disk.cut_power();
    disk.restore_power();
    let upper = again(&uppers);
    assert!(upper.suspects().is_empty());
    assert_eq!(contents(&upper, id), [7; 10_000]);
}

#[test]
fn a_power_cut_after_a_write_to_a_published_file_leaves_its_other_bytes() {
    let Some(disk) = Disk::new() else { return };
    let uppers = open(&disk.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let tree = TreeNode { size: 10_000, ..tree_node(1) };
    let key = upper.change(|change| change.add_node(&Node { content: Content::Tree(tree.clone()), ..file(Content::None) })).unwrap();
    upper.change(|change| change.put_name(0, b"a", Named::Node(key))).unwrap();
    let data = lay(&upper, key, Below::Tree(tree));
    data.write_at(5, b"own").unwrap();
    // The rows survive, the file does not.
    upper.sync().unwrap();
    let id = data.id();
    disk.cut_power();
    drop((data, upper));
    disk.restore_power();
    let upper = again(&uppers);
    let found = contents(&upper, id);
    assert_eq!((found.len(), &found[..5], &found[8..]), (10_000, &[b't'; 5][..], &[b't'; 9_992][..]));
    assert!(found[5..8] == *b"own" || found[5..8] == [0; 3]);
    assert!(upper.suspects().contains(&id));
}
