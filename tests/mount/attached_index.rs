//! Artifacts with attached indexes: the requests they save, and the cost of a broken one.

use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use ocifs::layer::{FileKind, Metadata, PackEntry, Packer, Packing, encode_attached};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::artifacts::{Draft, LAYER, MANIFEST, noise};
use crate::support::mounting::Home;
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const MIB: usize = 1 << 20;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A data layer with one file, and its index layer.
fn layers(draft: &Draft, packing: Packing, path: &str, data: &[u8]) -> [Value; 2] {
    let output = Output::default();
    let mut packer = Packer::new(packing, 2, Box::new(output.clone()));
    let entry = PackEntry {
        path: path.as_bytes().to_vec(),
        kind: FileKind::File,
        metadata: Metadata { mode: Some(0o640), mtime: Some((1_600_000_000, 0)), ..Metadata::default() },
        size: data.len() as u64,
        link: Vec::new(),
        xattrs: Vec::new(),
    };
    packer.begin(&entry).unwrap();
    packer.data(data).unwrap();
    let packed = packer.finish().unwrap();
    let blob = output.0.lock().clone();
    let mut layer = draft.blob(if packing == Packing::Raw { "application/octet-stream" } else { LAYER }, &blob);
    layer["annotations"] = match packing {
        Packing::Raw => json!({ "org.opencontainers.image.title": path }),
        _ => json!({ "org.opencontainers.image.title": ".", "io.deis.oras.content.unpack": "true" }),
    };
    let mut index =
        draft.blob("application/vnd.ocifs.index.v1+zstd", &encode_attached(&packed.index, &ocifs::sys::array::Scratch::memory()).unwrap());
    index["annotations"] = json!({ "dev.ocifs.index.of": layer["digest"] });
    [layer, index]
}

/// A registry with one artifact of a gzip layer and a raw one, 8 MiB each; the four layers of its manifest.
pub(super) fn published(data: &[u8]) -> (Registry, [Value; 4]) {
    let registry = Registry::plain();
    let mut draft = Draft::new();
    let [packed, packed_index] = layers(&draft, Packing::GzipTar, "packed", data);
    let [raw, raw_index] = layers(&draft, Packing::Raw, "raw", data);
    let layers = [packed, packed_index, raw, raw_index];
    let config = draft.blob("application/vnd.oci.empty.v1+json", b"{}");
    draft.tag("v1", &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }));
    draft.layout().push(&registry.url(), "team/data");
    (registry, layers)
}

fn digest(layer: &Value) -> &str {
    layer["digest"].as_str().unwrap()
}

#[test]
fn a_listing_fetches_no_layer_and_a_read_only_the_needed_spans() {
    if lacks(&NEEDS) {
        return;
    }
    let data = noise(7, 8 * MIB);
    let (registry, layers) = published(&data);
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &[]);
    assert_eq!(mount.ls("data/v1").unwrap(), ["packed", "raw"]);
    for name in ["packed", "raw"] {
        let attributes = std::fs::metadata(mount.path("data/v1").join(name)).unwrap();
        let shown = (attributes.mode() & 0o7777, attributes.mtime(), attributes.len());
        assert_eq!(shown, (0o640, 1_600_000_000, data.len() as u64), "{name}");
    }
    for (number, wanted) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        assert_eq!(proxy.count("GET", digest(&layers[number])), wanted, "layer {number}: {:?}", proxy.requests());
    }
    let cached = |name: &str| {
        let (mut value, path) = ([0; 64], mount.path("data/v1").join(name));
        let length = rustix::fs::getxattr(&path, "user.ocifs.cached", &mut value[..]).unwrap();
        assert_eq!(rustix::fs::listxattr(&path, &mut [0_u8; 64][..]).unwrap(), 0, "{name}");
        let (cached, total) = std::str::from_utf8(&value[..length]).unwrap().split_once('/').unwrap();
        (cached.parse::<usize>().unwrap(), total.parse::<usize>().unwrap())
    };
    let requests = proxy.requests().len();
    assert_eq!([cached("packed"), cached("raw"), cached("")], [(0, 8 * MIB), (0, 8 * MIB), (0, 16 * MIB)]);
    assert_eq!(proxy.requests().len(), requests, "{:?}", proxy.requests());
    for (name, layer) in [("packed", &layers[0]), ("raw", &layers[2])] {
        let file = std::fs::File::open(mount.path("data/v1").join(name)).unwrap();
        let mut part = [0; 4096];
        file.read_exact_at(&mut part, 5 * MIB as u64).unwrap();
        assert!(part == data[5 * MIB..5 * MIB + 4096], "wrong bytes of {name}");
        let sent = proxy.sent(digest(layer));
        assert!((1..4 * MIB as u64).contains(&sent), "{sent} bytes of {name}");
        assert!((4096..4 * MIB).contains(&cached(name).0), "{:?} of {name}", cached(name));
        let mut verified = [0; 16];
        let path = mount.path("data/v1").join(name);
        let length = rustix::fs::getxattr(&path, "user.oci.verified", &mut verified[..]).unwrap();
        assert_eq!(&verified[..length], b"whole", "{name}");
        assert!(mount.cat(&format!("data/v1/{name}")).unwrap() == data, "wrong bytes of {name}");
        assert_eq!(cached(name), (8 * MIB, 8 * MIB));
    }
    assert_eq!(cached(""), (16 * MIB, 16 * MIB));
    mount.unmount();
}

#[test]
fn broken_or_missing_indexes_and_flipped_spans_cost_only_requests() {
    if lacks(&NEEDS) {
        return;
    }
    let data = noise(8, 8 * MIB);
    let (registry, layers) = published(&data);
    for (number, fault) in
        [(1, Fault::Status(404)), (3, Fault::Status(404)), (1, Fault::Flip(40)), (0, Fault::Flip(9)), (2, Fault::Flip(9))]
    {
        let proxy = Proxy::start(registry.url());
        proxy.spoil(digest(&layers[number]), 1, fault.clone());
        let home = Home::new();
        let mount = home.mount(&format!("{}/team", proxy.host()), &[]);
        assert_eq!(mount.ls("data/v1").unwrap(), ["packed", "raw"]);
        for name in ["packed", "raw"] {
            assert!(mount.cat(&format!("data/v1/{name}")).unwrap() == data, "wrong bytes of {name} with {fault:?} of layer {number}");
        }
        mount.unmount();
    }
}
