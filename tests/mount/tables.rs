//! Layers with tables of contents behind a real registry: what a listing and a read cost.

use crate::support::layouts::{Layout, fixtures};
use crate::support::mounting::Home;
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// The digests and sizes of the layers of a tag.
fn layers(layout: &Layout, tag: &str) -> Vec<(String, u64)> {
    let manifest = layout.manifest(tag);
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap())).collect()
}

#[test]
fn an_image_with_tables_is_listed_by_kilobytes_and_every_file_is_right() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, layout) = (Registry::plain(), Layout::fixture("image-estargz"));
    layout.push(&registry.url(), "app");
    let proxy = Proxy::start(registry.url());
    for (tag, flags, is_lazy) in [
        ("zstd-chunked-stargz", &[][..], true),
        ("estargz", &[], false),
        // Strict verification ignores tables.
        ("zstd-chunked-stargz", &["--verify", "strict"], false),
    ] {
        let home = Home::new();
        let layers = layers(&layout, tag);
        let fetched = || layers.iter().map(|(digest, _)| proxy.sent(digest)).sum::<u64>();
        proxy.forget();
        let mount = home.mount(&format!("{}/app:{tag}", proxy.host()), flags);
        let names = mount.ls("").unwrap();
        assert!(names.contains(&"usr".to_owned()), "{names:?}");
        let whole: u64 = layers.iter().map(|(_, size)| size).sum();
        match is_lazy {
            true => assert!(fetched() < 10 << 10, "{}", fetched()),
            // The end of a layer that is hardly longer than what is fetched of it.
            false => assert!(fetched() <= whole, "{} of {whole}", fetched()),
        }
        assert_eq!(mount.cat("bin/tool").unwrap().len(), 10);
        if is_lazy {
            // One chunk, and those beside it.
            assert!(fetched() < whole, "{} of {whole}", fetched());
        }
        mount.compare(&fixtures().join(format!("image-estargz/expected/{tag}.tsv")), "").unwrap();
        mount.unmount();
    }
}
