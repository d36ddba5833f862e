//! Blobs: one file per layer, named by its media type if known, else by its digest.

use super::steps::{content_layers, file_step};
use super::{Plan, Title};
use crate::artifact::Dialect;
use crate::oci::{Descriptor, ImageManifest};

/// File names by media type.
const NAMES: [(&str, &str); 34] = [
    ("application/wasm", "module.wasm"),
    ("application/vnd.wasm.content.layer.v1+wasm", "module.wasm"),
    ("application/vnd.module.wasm.content.layer.v1+wasm", "module.wasm"),
    ("application/vnd.docker.ai.gguf.v3", "model.gguf"),
    ("application/vnd.docker.ai.gguf.v3.lora", "adapter.gguf"),
    ("application/vnd.docker.ai.safetensors", "model.safetensors"),
    ("application/vnd.docker.ai.dduf", "model.dduf"),
    ("application/vnd.docker.ai.vllm.config.tar", "config.tar"),
    ("application/vnd.docker.ai.dir.tar", "directory.tar"),
    ("application/vnd.docker.ai.mmproj", "projector.gguf"),
    ("application/vnd.docker.ai.chat.template.jinja", "template.jinja"),
    ("application/vnd.docker.ai.license", "LICENSE"),
    ("application/vnd.ollama.image.model", "model.gguf"),
    ("application/vnd.ollama.image.adapter", "adapter.gguf"),
    ("application/vnd.ollama.image.projector", "projector.gguf"),
    ("application/vnd.ollama.image.license", "LICENSE"),
    ("application/vnd.ollama.image.template", "template"),
    ("application/vnd.ollama.image.system", "system"),
    ("application/vnd.ollama.image.params", "params.json"),
    ("application/vnd.ollama.image.messages", "messages.json"),
    ("application/vnd.dev.cosign.simplesigning.v1+json", "signature.json"),
    ("application/vnd.dev.sigstore.bundle.v0.3+json", "bundle.sigstore.json"),
    ("application/vnd.dev.sigstore.bundle+json", "bundle.sigstore.json"),
    ("application/spdx+json", "sbom.spdx.json"),
    ("text/spdx+json", "sbom.spdx.json"),
    ("text/spdx", "sbom.spdx"),
    ("application/vnd.cyclonedx+json", "sbom.cdx.json"),
    ("application/vnd.cyclonedx+xml", "sbom.cdx.xml"),
    ("application/vnd.cyclonedx", "sbom.cdx"),
    ("application/vnd.syft+json", "sbom.syft.json"),
    ("application/vnd.docker.compose.file+yaml", "compose.yaml"),
    ("application/vnd.docker.compose.envfile", "compose.env"),
    ("application/sarif+json", "report.sarif.json"),
    ("application/vnd.cncf.helm.chart.provenance.v1.prov", "chart.prov"),
];
/// Attestations, whose predicate is part of the name.
const STATEMENTS: [&str; 2] = ["application/vnd.in-toto+json", "application/vnd.dsse.envelope.v1+json"];
const PREDICATES: [&str; 3] = ["in-toto.io/predicate-type", "predicateType", "dev.sigstore.bundle.predicateType"];

/// The fallback if no other rule matches.
pub(super) fn plan(image: &ImageManifest, base: &[u8]) -> Plan {
    let steps = content_layers(image).map(|layer| file_step(layer, title(layer), base)).collect();
    Plan { dialect: Dialect::Blobs, steps }
}

/// Every blob of the manifest under its digest, including the config.
pub(super) fn as_stored(image: &ImageManifest, base: &[u8]) -> Plan {
    let blobs = std::iter::once(&image.config).chain(&image.layers);
    Plan { dialect: Dialect::Blobs, steps: blobs.map(|blob| file_step(blob, Title::none(), base)).collect() }
}

/// The name of an untitled blob.
pub(super) fn title(blob: &Descriptor) -> Title {
    let plain = blob.media_type.split(';').next().unwrap_or_default().trim_end();
    if STATEMENTS.contains(&plain) {
        let predicate = PREDICATES.iter().find_map(|key| blob.annotation(key)).map_or_else(String::new, short_predicate);
        return Title::name(&format!("{}.intoto.json", if predicate.is_empty() { "attestation" } else { &predicate }));
    }
    NAMES.iter().find(|(media_type, _)| *media_type == plain).map_or_else(Title::none, |(_, name)| Title::name(name))
}

/// `https://slsa.dev/provenance/v1` becomes `slsa-provenance-v1`: the words of the host's own name and the path.
fn short_predicate(uri: &str) -> String {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or(("", rest));
    let mut labels = host.rsplit('.').skip(1);
    let own = labels.next().unwrap_or_default();
    let words = std::iter::once(own).chain(path.split('/'));
    let letters = |word: &str| -> String {
        let plain = word.chars().map(|letter| if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '-' });
        plain.collect::<String>().trim_matches(['.', '-']).to_lowercase()
    };
    words.map(letters).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-").chars().take(100).collect()
}
