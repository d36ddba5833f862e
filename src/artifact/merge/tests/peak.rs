//! Peak memory while an index and a tree are built, sampled in a separate process.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::layer::{Form, LayerIndex, Resources, Scan, SpanSink};
use crate::oci::Digest;
use crate::sys::array::tests::Temporary;

/// Set in the process that does the work.
const CHILD: &str = "OCIFS_TEST_OF_PEAK_MEMORY";
const MIB: u64 = 1 << 20;
/// Number of entries without content, and of entries with many large attributes.
const EMPTY: usize = 100_000;
const LOADED: usize = 100;

#[test]
fn index_and_tree_are_built_in_bounded_memory() {
    if std::env::var_os(CHILD).is_some() {
        return make_both();
    }
    let name = "artifact::merge::tests::peak::index_and_tree_are_built_in_bounded_memory";
    let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}

fn make_both() {
    let before = anonymous();
    let running = AtomicBool::new(true);
    let (index, tree, peak) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while running.load(Ordering::Relaxed) {
                peak = peak.max(anonymous());
                std::thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        let scratch = Scratch::on_disk(Arc::new(Temporary));
        let index = index(&Resources { scratch: scratch.clone(), ..Resources::default() });
        let mut merge = Merge::new(&scratch).unwrap();
        merge.layer(0, &index, &Placing::default()).unwrap();
        let bytes = merge.encode(&[MergeSource::Layer { entries: &index, image: false }]).unwrap();
        let tree = Tree::open(Arc::new(bytes)).unwrap();
        running.store(false, Ordering::Relaxed);
        (index, tree, sampler.join().unwrap())
    });
    assert_eq!(tree.lookup(0, b"f0099999").map(|node| tree.xattrs(node).len()), Some(0));
    assert_eq!(tree.lookup(0, b"x099").map(|node| tree.xattrs(node).len()), Some(12));
    let made = (index.as_bytes().len() + tree.as_bytes().len()) as u64;
    assert!(made > 150 * MIB, "{made}");
    let grown = peak.saturating_sub(before);
    assert!(grown < 24 * MIB, "making {} MiB took {} MiB of memory", made / MIB, grown / MIB);
}

/// RssAnon of this process in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

fn index(resources: &Resources) -> LayerIndex {
    let mut scan = Scan::new(Form::Archive, resources);
    let mut push = |bytes: &[u8]| scan.push(bytes, &mut Nowhere).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    for number in 0..EMPTY {
        header.set_path(format!("f{number:07}")).unwrap();
        header.set_cksum();
        push(header.as_bytes());
    }
    let value = vec![b'x'; 60_000];
    for number in 0..LOADED {
        let names: Vec<String> = (0..12).map(|name| format!("SCHILY.xattr.user.a{name:02}")).collect();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(names.iter().map(|name| (name.as_str(), value.as_slice()))).unwrap();
        builder.append_data(&mut header.clone(), format!("x{number:03}"), std::io::empty()).unwrap();
        let archive = builder.into_inner().unwrap();
        push(&archive[..archive.len() - 1024]);
    }
    push(&[0; 1024]);
    scan.finish(Digest::of(b""), &mut Nowhere).unwrap()
}

struct Nowhere;

impl SpanSink for Nowhere {
    fn member(&mut self, _: std::ops::Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn span(&mut self, _: u32, _: std::ops::Range<u64>, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}
