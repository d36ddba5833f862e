//! A writable in-process registry behind the scripted server, with the differences between real ones as switches. It is stricter than they
//! are: chunk order, lengths, digests and members of manifests are checked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::scripted::{Received, Reply, Server, reply};
use crate::oci::{Digest, Manifest, media_type};
use crate::registry::HttpRegistry;

/// How a registry behaves where real ones differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// The referrers API and `OCI-Subject`.
    pub(super) referrers: bool,
    /// Tags are deleted by name.
    pub(super) tag_deletes: bool,
    /// Manifests are deleted by digest, with their tags.
    pub(super) deletes: bool,
    /// Blobs are mounted.
    pub(super) mounts: bool,
    /// `OCI-Chunk-Min-Length`.
    pub(super) least: usize,
    /// Whether `Location` is absolute.
    pub(super) absolute: bool,
}

pub(super) const FULL: Manner = Manner { referrers: true, tag_deletes: true, deletes: true, mounts: true, least: 0, absolute: false };

/// Its content, by repository where that matters.
#[derive(Default)]
pub(super) struct Held {
    pub(super) sessions: HashMap<String, Vec<u8>>,
    pub(super) opened: usize,
    pub(super) blobs: HashMap<(String, String), Vec<u8>>,
    pub(super) manifests: HashMap<(String, String), Vec<u8>>,
    pub(super) tags: BTreeMap<(String, String), String>,
}

/// The registry and its content.
#[derive(Clone)]
pub(super) struct Writable {
    pub(super) held: Arc<Mutex<Held>>,
    pub(super) manner: Manner,
}

pub(super) fn error(status: u16, code: &str) -> Reply {
    reply(status, &[("Content-Type", "application/json")], json!({"errors": [{"code": code, "message": "no"}]}).to_string().as_bytes())
}

impl Writable {
    pub(super) fn new(manner: Manner) -> Self {
        Self { held: Arc::default(), manner }
    }

    /// Serves it; `script` may answer first.
    pub(super) async fn serve(&self, script: impl Fn(&Received, &Self) -> Option<Reply> + Send + Sync + 'static) -> Server {
        let registry = self.clone();
        Server::start(move |request, _| script(request, &registry).unwrap_or_else(|| registry.answer(request))).await
    }

    pub(super) fn blob(&self, data: &[u8]) -> bool {
        let key = ("team/app".to_owned(), Digest::of(data).to_string());
        self.held.lock().blobs.get(&key).is_some_and(|held| held == data)
    }

    /// Its response when nothing goes wrong.
    pub(super) fn answer(&self, request: &Received) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let path = path.strip_prefix("/v2/").unwrap_or_default();
        if path.is_empty() {
            return reply(200, &[], b"{}");
        }
        for (part, handle) in [
            ("/blobs/uploads/", Self::upload as fn(&Self, &Received, &str, &str, &str) -> Reply),
            ("/blobs/", Self::stored),
            ("/manifests/", Self::manifest),
            ("/referrers/", Self::referrers),
            ("/tags/", Self::tags),
        ] {
            if let Some((repository, rest)) = path.split_once(part) {
                return handle(self, request, repository, rest, query);
            }
        }
        error(404, "NAME_UNKNOWN")
    }

    fn location(&self, request: &Received, repository: &str, session: &str) -> String {
        let host = if self.manner.absolute { format!("http://{}", request.header("host").unwrap()) } else { String::new() };
        format!("{host}/v2/{repository}/blobs/uploads/{session}?_state=a%2Bb")
    }

    fn upload(&self, request: &Received, repository: &str, session: &str, query: &str) -> Reply {
        let argument = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(|value| value.replace("%3A", ":").replace("%2F", "/"))
        };
        let mut held = self.held.lock();
        if request.method == "POST" {
            if let (true, Some(mount), Some(from)) = (self.manner.mounts, argument("mount"), argument("from"))
                && let Some(data) = held.blobs.get(&(from, mount.clone())).cloned()
            {
                held.blobs.insert((repository.to_owned(), mount), data);
                return reply(201, &[("Location", "/x")], b"");
            }
            assert_eq!(request.header("content-length"), Some("0"));
            held.opened += 1;
            let session = format!("s{}", held.opened);
            held.sessions.insert(session.clone(), Vec::new());
            let (location, least) = (self.location(request, repository, &session), self.manner.least.to_string());
            return reply(202, &[("Location", &location), ("Range", "0-0"), ("OCI-Chunk-Min-Length", &least)], b"");
        }
        assert!(query.starts_with("_state=a%2Bb"), "the query is kept: {query}");
        let Some(data) = held.sessions.get_mut(session) else { return error(404, "BLOB_UPLOAD_UNKNOWN") };
        let location = self.location(request, repository, session);
        match request.method.as_str() {
            "PATCH" => {
                let (first, last) = request.header("content-range").unwrap().split_once('-').unwrap();
                let length = last.parse::<usize>().unwrap() + 1 - first.parse::<usize>().unwrap();
                assert_eq!(request.header("content-length"), Some(length.to_string().as_str()));
                if first != data.len().to_string() {
                    return error(416, "BLOB_UPLOAD_INVALID");
                }
                data.extend_from_slice(&request.bytes);
            }
            "PUT" => {
                data.extend_from_slice(&request.bytes);
                let (digest, data) = (argument("digest").unwrap(), data.clone());
                held.sessions.remove(session);
                if Digest::of(&data).to_string() != digest {
                    return error(400, "DIGEST_INVALID");
                }
                held.blobs.insert((repository.to_owned(), digest.clone()), data);
                return reply(201, &[("Docker-Content-Digest", &digest)], b"");
            }
            "DELETE" => {
                held.sessions.remove(session);
                return reply(204, &[], b"");
            }
            _ => {}
        }
        let reached = format!("0-{}", held.sessions[session].len().saturating_sub(1));
        reply(if request.method == "GET" { 204 } else { 202 }, &[("Location", &location), ("Range", &reached)], b"")
    }

    fn stored(&self, _: &Received, repository: &str, digest: &str, _: &str) -> Reply {
        match self.held.lock().blobs.get(&(repository.to_owned(), digest.to_owned())) {
            Some(data) => reply(200, &[], data),
            None => error(404, "BLOB_UNKNOWN"),
        }
    }

    fn manifest(&self, request: &Received, repository: &str, name: &str, _: &str) -> Reply {
        let mut held = self.held.lock();
        let of = |name: &str| (repository.to_owned(), name.to_owned());
        let digest = held.tags.get(&of(name)).cloned().unwrap_or_else(|| name.to_owned());
        match request.method.as_str() {
            "PUT" => self.put(&mut held, request, repository, name),
            "DELETE" if !name.contains(':') => match (self.manner.tag_deletes, held.tags.contains_key(&of(name))) {
                (false, _) => error(400, "DIGEST_INVALID"),
                (true, false) => error(404, "MANIFEST_UNKNOWN"),
                (true, true) => {
                    held.tags.remove(&of(name));
                    reply(202, &[], b"")
                }
            },
            "DELETE" if !self.manner.deletes => error(405, "UNSUPPORTED"),
            "DELETE" => match held.manifests.remove(&of(name)) {
                Some(_) => {
                    held.tags.retain(|(owner, _), tagged| owner != repository || tagged != name);
                    reply(202, &[], b"")
                }
                None => error(404, "MANIFEST_UNKNOWN"),
            },
            _ => match held.manifests.get(&of(&digest)) {
                Some(raw) => {
                    let kind = Manifest::parse(raw.clone().into(), Digest::of(raw)).unwrap().media_type;
                    reply(200, &[("Docker-Content-Digest", &digest), ("Content-Type", &kind)], raw)
                }
                None => error(404, "MANIFEST_UNKNOWN"),
            },
        }
    }

    fn put(&self, held: &mut Held, request: &Received, repository: &str, name: &str) -> Reply {
        let of = |name: &str| (repository.to_owned(), name.to_owned());
        let digest = Digest::of(&request.bytes);
        let Ok(manifest) = Manifest::parse(request.bytes.clone().into(), digest) else { return error(400, "MANIFEST_INVALID") };
        assert_eq!(request.header("content-type"), Some(manifest.media_type.as_str()));
        if name.contains(':') && name != digest.to_string() {
            return error(400, "DIGEST_INVALID");
        }
        let mut blobs = manifest.image().into_iter().flat_map(|image| image.layers.iter().chain([&image.config]));
        let mut members = manifest.index().into_iter().flat_map(|index| &index.manifests);
        if blobs.any(|blob| !held.blobs.contains_key(&of(&blob.digest.to_string())))
            || members.any(|member| !held.manifests.contains_key(&of(&member.digest.to_string())))
        {
            return error(400, "MANIFEST_BLOB_UNKNOWN");
        }
        held.manifests.insert(of(&digest.to_string()), request.bytes.clone());
        if !name.contains(':') {
            held.tags.insert(of(name), digest.to_string());
        }
        let mut headers = vec![("Docker-Content-Digest", digest.to_string())];
        if let (true, Some(subject)) = (self.manner.referrers, manifest.subject()) {
            headers.push(("OCI-Subject", subject.digest.to_string()));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        reply(201, &headers, b"")
    }

    fn referrers(&self, _: &Received, repository: &str, subject: &str, _: &str) -> Reply {
        if !self.manner.referrers {
            return reply(404, &[("Content-Type", "text/plain")], b"404 page not found");
        }
        let held = self.held.lock();
        let manifests = held.manifests.iter().filter(|((owner, _), _)| owner == repository);
        let entries: Vec<_> = manifests
            .filter_map(|(_, raw)| Manifest::parse(raw.clone().into(), Digest::of(raw)).ok())
            .filter(|manifest| manifest.subject().is_some_and(|named| named.digest.to_string() == subject))
            .map(|manifest| {
                json!({"mediaType": manifest.media_type, "digest": manifest.digest.to_string(), "size": manifest.raw.len(),
                    "artifactType": manifest.artifact_type(), "annotations": manifest.annotations()})
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}).to_string();
        reply(200, &[("Content-Type", media_type::OCI_INDEX)], index.as_bytes())
    }

    fn tags(&self, _: &Received, repository: &str, _: &str, _: &str) -> Reply {
        let held = self.held.lock();
        let names: Vec<_> = held.tags.keys().filter(|(owner, _)| owner == repository).map(|(_, name)| name).collect();
        reply(200, &[], json!({"tags": names}).to_string().as_bytes())
    }
}

/// A client with small requests, so that tests take several.
pub(super) fn writer(authority: &str) -> HttpRegistry {
    let mut config = super::config(authority);
    super::small_requests(&mut config);
    HttpRegistry::new(config).unwrap()
}
