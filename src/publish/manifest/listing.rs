//! Configs that list their artifact's layers: keeps the list up to date on edits.

use bytes::Bytes;
use serde_json::{Value, json};

use super::text;
use crate::oci::Digest;

/// One layer of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::publish) struct Listed {
    /// The blob.
    pub digest: Digest,
    /// Digest of its uncompressed content, if that differs.
    pub diff_id: Option<Digest>,
}

/// Where configs list layers, and whether by uncompressed digest: ModelPack; Docker's and Ollama's models; WebAssembly.
const LISTS: [(&str, bool); 3] = [("/modelfs/diffIds", true), ("/rootfs/diff_ids", true), ("/layerDigests", false)];

/// The config with its list of the layers `before` replaced by one of those `after`. `None` if there is no list or nothing changes.
pub(in crate::publish) fn relisted(config: &[u8], before: &[Digest], after: &[Listed]) -> Option<Bytes> {
    let mut all: Value = serde_json::from_slice(config).ok()?;
    let mut changed = false;
    for (place, unpacked) in LISTS {
        let Some(list) = all.pointer_mut(place).and_then(Value::as_array_mut).filter(|list| list.len() == before.len()) else { continue };
        let entry = |layer: &Listed| {
            let kept = before.iter().position(|digest| *digest == layer.digest).and_then(|number| list.get(number)).cloned();
            kept.unwrap_or_else(|| json!(layer.diff_id.filter(|_| unpacked).unwrap_or(layer.digest).to_string()))
        };
        let new: Vec<Value> = after.iter().map(entry).collect();
        changed |= new != *list;
        *list = new;
    }
    changed.then(|| text(&all).into())
}

/// Layers that a config lists but the artifact no longer has.
pub(in crate::publish) fn stale(config: &[u8], before: &[Digest], after: &[Listed]) -> Vec<Digest> {
    let config = String::from_utf8_lossy(config);
    let gone = before.iter().filter(|digest| !after.iter().any(|layer| layer.digest == **digest));
    gone.filter(|digest| config.contains(&digest.to_string())).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    const NONE: Option<Digest> = None;

    #[test]
    fn lists_follow_the_layers_and_everything_else_stays() {
        let before = [of("a"), of("b packed")];
        let after = [Listed { digest: of("a"), diff_id: NONE }, Listed { digest: of("c packed"), diff_id: Some(of("c")) }];
        for (place, unpacked) in [("modelfs", true), ("rootfs", true), ("layerDigests", false)] {
            let old = if unpacked { [of("a"), of("b")] } else { before };
            let list = json!(old.map(|digest| digest.to_string()));
            let config = match place {
                "modelfs" => json!({"x": 1, "modelfs": {"type": "layers", "diffIds": list}}),
                "rootfs" => json!({"x": 1, "rootfs": {"type": "rootfs", "diff_ids": list}}),
                _ => json!({"x": 1, "layerDigests": list}),
            };
            let edited = relisted(config.to_string().as_bytes(), &before, &after).unwrap();
            let text = String::from_utf8(edited.to_vec()).unwrap();
            let expected = config.to_string().replace(&old[1].to_string(), &of(if unpacked { "c" } else { "c packed" }).to_string());
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::from_str::<Value>(&expected).unwrap());
            assert_eq!(stale(&edited, &before, &after), []);
        }
    }

    #[test]
    fn other_lists_are_left_alone_and_reported() {
        let before = [of("a"), of("b")];
        let after = [Listed { digest: of("a"), diff_id: NONE }];
        let same = [Listed { digest: of("a"), diff_id: NONE }, Listed { digest: of("b"), diff_id: NONE }];
        for config in ["no json".to_owned(), "{}".to_owned(), json!({"layerDigests": [of("b").to_string()]}).to_string()] {
            assert_eq!(relisted(config.as_bytes(), &before, &after), None, "{config}");
        }
        let listed = json!({"layerDigests": [of("a").to_string(), of("b").to_string()]}).to_string();
        assert_eq!(relisted(listed.as_bytes(), &before, &same), None);
        let told = json!({"model": {"digest": of("b").to_string()}, "other": of("a").to_string()}).to_string();
        assert_eq!(stale(told.as_bytes(), &before, &after), [of("b")]);
    }
}
