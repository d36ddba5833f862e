//! How the index of a layer is attached to an artifact: media types and annotations, for reading and writing.
//!
//! Among titled layers, the index is a layer of its own right after its data layer. Other manifests cannot hold extra layers: there the data layer's
//! descriptor names a blob, which a referrer keeps alive. Where a manifest names no index, a referrer may: each of its layers is the index of a layer of
//! its subject, and an annotation says so in the list of referrers too. Pure: the result is a claim, which `content` verifies when the index arrives.

use crate::oci::{Descriptor, Digest};

/// Media type of an index layer.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.ocifs.index.v1+zstd";
/// Artifact type of the referrer that keeps index blobs alive.
pub const INDEX_ARTIFACT_TYPE: &str = "application/vnd.ocifs.index.v1";
/// On an index layer: the digest of its data layer.
pub const INDEX_OF: &str = "dev.ocifs.index.of";
/// On a data layer: the digest of its index blob.
pub const INDEX_DIGEST: &str = "dev.ocifs.index";
/// On a data layer: the size of its index blob in bytes, in decimal.
pub const INDEX_SIZE: &str = "dev.ocifs.index.size";

/// On a referrer: all index blobs with their layers, `LAYER=INDEX/SIZE` separated by commas, so that a reader need not fetch the referrer.
pub const INDEX_LIST: &str = "dev.ocifs.index.list";

/// Prefix of the media types of index layers, including those of later versions; none is ever shown.
const INDEX_LAYER: &str = "application/vnd.ocifs.index.v1+";

/// The layer that holds the index of the preceding layer.
pub fn index_layer(of: &Digest, index: Digest, size: u64) -> Descriptor {
    let mut layer = Descriptor::new(INDEX_MEDIA_TYPE, index, size);
    layer.annotations.insert(INDEX_OF.to_owned(), of.to_string());
    layer
}

/// Binds an index blob to a layer that cannot be followed by an index layer.
pub fn bind(layer: &mut Descriptor, index: Digest, size: u64) {
    layer.annotations.insert(INDEX_DIGEST.to_owned(), index.to_string());
    layer.annotations.insert(INDEX_SIZE.to_owned(), size.to_string());
}

/// Whether a layer is an index rather than content.
pub fn is_index_layer(layer: &Descriptor) -> bool {
    layer.media_type.starts_with(INDEX_LAYER)
}

/// The index attached to a layer, by its position in the manifest: the following layer, or the one named in its annotations.
pub fn index_of(layers: &[Descriptor], number: usize) -> Option<Descriptor> {
    let layer = layers.get(number).filter(|layer| !is_index_layer(layer))?;
    let neighbour = layers.get(number + 1).filter(|next| next.media_type == INDEX_MEDIA_TYPE);
    if let Some(index) = neighbour
        && layer_of(index) == Some(layer.digest)
    {
        return Some(index.clone());
    }
    let digest = Digest::parse(layer.annotation(INDEX_DIGEST)?).ok()?;
    let size = layer.annotation(INDEX_SIZE)?.parse().ok()?;
    Some(Descriptor::new(INDEX_MEDIA_TYPE, digest, size))
}

/// The value of [`INDEX_LIST`] for the index layers of a referrer.
pub fn list(layers: &[Descriptor]) -> String {
    let entry = |layer: &Descriptor| Some(format!("{}={}/{}", layer.annotation(INDEX_OF)?, layer.digest, layer.size));
    layers.iter().filter_map(entry).collect::<Vec<_>>().join(",")
}

/// The index layers that a referrer lists in its annotations, in the form that [`index_layer`] gives them; `None` if it lists none.
pub fn listed(referrer: &Descriptor) -> Option<Vec<Descriptor>> {
    let entry = |text: &str| {
        let (of, index) = text.split_once('=')?;
        let (index, size) = index.split_once('/')?;
        Some(index_layer(&Digest::parse(of).ok()?, Digest::parse(index).ok()?, size.parse().ok()?))
    };
    referrer.annotation(INDEX_LIST).map(|list| list.split(',').filter_map(entry).collect())
}

/// The layer that an index layer belongs to.
pub fn layer_of(index: &Descriptor) -> Option<Digest> {
    Digest::parse(index.annotation(INDEX_OF)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(data: &[u8]) -> Descriptor {
        Descriptor::new("a/b", Digest::of(data), data.len() as u64)
    }

    #[test]
    fn an_index_belongs_to_the_layer_in_front_of_it_and_to_no_other() {
        let (one, two) = (layer(b"one"), layer(b"two"));
        let index = index_layer(&one.digest, Digest::of(b"index"), 5);
        assert_eq!(index_of(&[one.clone(), index.clone(), two.clone()], 0), Some(index.clone()));
        for (layers, number) in [
            (vec![two.clone(), index.clone()], 0),
            (vec![one.clone(), two.clone(), index.clone()], 0),
            (vec![one.clone(), index.clone(), index.clone()], 1),
            (vec![one.clone(), index.clone()], 7),
        ] {
            assert_eq!(index_of(&layers, number), None, "{layers:?}");
        }
    }

    #[test]
    fn a_bound_index_needs_a_digest_and_a_size() {
        let mut bound = layer(b"one");
        bind(&mut bound, Digest::of(b"index"), 5);
        let found = index_of(std::slice::from_ref(&bound), 0).unwrap();
        assert_eq!((found.digest, found.size), (Digest::of(b"index"), 5));
        for (key, value) in [(INDEX_DIGEST, "sha256:../x"), (INDEX_SIZE, "-1"), (INDEX_SIZE, "")] {
            let mut broken = bound.clone();
            broken.annotations.insert(key.to_owned(), value.to_owned());
            assert_eq!(index_of(&[broken], 0), None, "{key} {value}");
        }
    }

    #[test]
    fn a_referrer_lists_its_index_layers_and_a_broken_entry_hides_no_other() {
        let indexes = [index_layer(&Digest::of(b"one"), Digest::of(b"i"), 5), index_layer(&Digest::of(b"two"), Digest::of(b"j"), 6)];
        let mut referrer = layer(b"referrer");
        assert_eq!(listed(&referrer), None);
        referrer.annotations.insert(INDEX_LIST.to_owned(), list(&indexes));
        assert_eq!(listed(&referrer), Some(indexes.to_vec()));
        assert_eq!(indexes.each_ref().map(layer_of), [Some(Digest::of(b"one")), Some(Digest::of(b"two"))]);
        referrer.annotations.insert(INDEX_LIST.to_owned(), format!("x=y/1,{},sha256:../a=b", list(&indexes[1..])));
        assert_eq!(listed(&referrer), Some(indexes[1..].to_vec()));
    }
}
