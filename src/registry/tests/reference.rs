//! A small in-process registry that behaves like real ones, with their differences as switches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::suite::Sample;
use crate::oci::{Digest, Manifest, media_type};

/// How a registry behaves where real ones differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// The referrers API; else the tag schema.
    referrers: bool,
    /// Pages with `Link`; else `n` and `last` are ignored.
    pages: bool,
    /// Ranges of blobs; else the whole blob whatever is asked.
    ranges: bool,
    /// `Docker-Content-Digest`.
    digests: bool,
    /// HEAD of manifests; else 405.
    head: bool,
}

const FULL: Manner = Manner { referrers: true, pages: true, ranges: true, digests: true, head: true };
pub(super) const MANNERS: [Manner; 6] = [
    FULL,
    Manner { referrers: false, ..FULL },
    Manner { pages: false, ..FULL },
    Manner { ranges: false, ..FULL },
    Manner { digests: false, ..FULL },
    Manner { head: false, digests: false, referrers: false, pages: false, ..FULL },
];

struct Contents {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    tags: BTreeMap<String, String>,
    manner: Manner,
}

pub(super) struct Server {
    pub(super) authority: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn router(sample: &Sample, manner: Manner) -> Router {
    let mut tags: BTreeMap<String, String> = sample.tags.iter().map(|(name, digest)| (name.clone(), digest.to_string())).collect();
    let mut manifests: HashMap<String, Vec<u8>> =
        sample.manifests.iter().map(|raw| (Digest::of(raw.as_bytes()).to_string(), raw.clone().into_bytes())).collect();
    if !manner.referrers {
        let index = index_of_referrers(&manifests, &sample.subject);
        let digest = Digest::of(index.as_bytes()).to_string();
        manifests.insert(digest.clone(), index.into_bytes());
        tags.insert(sample.subject.path_name(), digest);
    }
    let blobs = sample.blobs.iter().map(|data| (Digest::of(data).to_string(), data.clone())).collect();
    Router::new().fallback(handle).with_state(Arc::new(Contents { blobs, manifests, tags, manner }))
}

pub(super) async fn start(sample: &Sample, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let router = router(sample, manner);
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server { authority, task }
}

pub(super) fn full() -> Manner {
    FULL
}

fn index_of_referrers(manifests: &HashMap<String, Vec<u8>>, subject: &Digest) -> String {
    let entries: Vec<_> = manifests
        .values()
        .filter_map(|raw| Manifest::parse(raw.clone().into(), Digest::of(raw)).ok())
        .filter(|manifest| manifest.subject().is_some_and(|named| named.digest == *subject))
        .map(|manifest| {
            json!({"mediaType": manifest.media_type, "digest": manifest.digest.to_string(), "size": manifest.raw.len(),
                "artifactType": manifest.artifact_type(), "annotations": manifest.annotations()})
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}).to_string()
}

async fn handle(State(contents): State<Arc<Contents>>, request: Request) -> Response<Body> {
    let path = request.uri().path().trim_start_matches("/v2/").to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if request.uri().path() == "/v2/" {
        return Response::new(Body::empty());
    }
    if path == "_catalog" {
        return page(&contents, "repositories", ["team/app".to_owned()].iter(), "/v2/_catalog", &query);
    }
    let Some(rest) = path.strip_prefix("team/app/") else { return status(StatusCode::NOT_FOUND) };
    if rest == "tags/list" {
        return page(&contents, "tags", contents.tags.keys(), "/v2/team/app/tags/list", &query);
    }
    match rest.split_once('/') {
        Some(("manifests", name)) => manifest(&contents, request.method(), request.headers(), name),
        Some(("blobs", digest)) => blob(&contents, request.headers(), digest),
        Some(("referrers", digest)) if contents.manner.referrers => {
            let index = index_of_referrers(&contents.manifests, &Digest::parse(digest).unwrap());
            Response::builder().header("Content-Type", media_type::OCI_INDEX).body(index.into()).unwrap()
        }
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).header("Content-Type", "text/plain").body("404 page not found".into()).unwrap()
}

fn page<'a>(contents: &Contents, member: &str, names: impl Iterator<Item = &'a String>, path: &str, query: &str) -> Response<Body> {
    let last = query.split('&').find_map(|pair| pair.strip_prefix("last=")).unwrap_or_default();
    if !contents.manner.pages {
        let names: Vec<_> = names.collect();
        return Response::new(json!({"name": "team/app", member: names}).to_string().into());
    }
    let names: Vec<_> = names.filter(|name| name.as_str() > last).collect();
    let shown: Vec<_> = names.iter().take(2).collect();
    let mut response = Response::builder();
    if names.len() > 2 {
        response = response.header("Link", format!("<{path}?last={}&n=2>; rel=\"next\"", shown[1]));
    }
    response.body(json!({"name": "team/app", member: shown}).to_string().into()).unwrap()
}

fn manifest(contents: &Contents, method: &Method, headers: &HeaderMap, name: &str) -> Response<Body> {
    if method == Method::HEAD && !contents.manner.head {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let digest = contents.tags.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let Some(raw) = contents.manifests.get(&digest) else { return status(StatusCode::NOT_FOUND) };
    let kind = Manifest::parse(raw.clone().into(), Digest::of(raw)).unwrap().media_type;
    // Like docker-registry: a type that the client did not accept is not found.
    if !headers.get("accept").is_some_and(|accept| accept.to_str().unwrap().contains(&kind)) {
        return status(StatusCode::NOT_FOUND);
    }
    let mut response = Response::builder().header("Content-Type", kind).header("Content-Length", raw.len());
    if contents.manner.digests {
        response = response.header("Docker-Content-Digest", digest);
    }
    response.body(if method == Method::HEAD { Body::empty() } else { raw.clone().into() }).unwrap()
}

fn blob(contents: &Contents, headers: &HeaderMap, digest: &str) -> Response<Body> {
    let Some(data) = contents.blobs.get(digest) else { return status(StatusCode::NOT_FOUND) };
    let range = headers.get("range").filter(|_| contents.manner.ranges).map(|range| range.to_str().unwrap());
    let Some(range) = range else { return Response::new(data.clone().into()) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    if first >= data.len() {
        return status(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    let last = last.min(data.len() - 1);
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("Content-Range", format!("bytes {first}-{last}/{}", data.len()))
        .body(data[first..=last].to_vec().into())
        .unwrap()
}
