//! Hosted repositories: reading, uploading, putting, deleting.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};

use super::incoming::{Patience, read_all};
use super::manifests::{DIGEST, digest_value};
use super::problem::{Code, Problem};
use super::range::uploaded;
use super::route::{self, Route};
use super::store::{self, Session, Store};
use super::{blobs, lists, manifests, pages, respond};
use crate::blocking::spawn_blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Algorithm, Digest, Hasher, Manifest, Repository, Tag, Version};
use crate::registry::{MANIFEST_LIMIT, Pull, Push};

/// Most tags per manifest put.
const TAGS: usize = 100;

/// A request for a hosted repository.
pub(super) struct Asked<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) repository: Repository,
    /// The client's user, if known.
    pub(super) user: Option<&'a str>,
    /// Whether the client may pull from another repository.
    pub(super) may_pull: &'a (dyn Fn(&Repository) -> bool + Sync),
    /// How long to wait for its body.
    pub(super) patience: Patience,
}

/// Answers a request.
pub(super) async fn answer(asked: Asked<'_>, route: &Route, request: &Parts, body: Body) -> Result<Response<Body>, Problem> {
    let reads = respond::reads(request);
    match (route, &request.method) {
        (Route::Manifest(_, version), _) if reads => asked.manifest(version, request).await,
        (Route::Manifest(_, version), &Method::PUT) => asked.put(version, request, body).await,
        (Route::Manifest(_, version), &Method::DELETE) => asked.delete(version).await,
        (Route::Blob(_, digest), _) if reads => blob(asked.store, &asked.repository, digest, request).await,
        (Route::Blob(_, digest), &Method::DELETE) => asked.delete_blob(digest).await,
        (Route::Uploads(_), &Method::POST) => asked.begin(request, body).await,
        (Route::Upload(_, id), &Method::GET) => asked.status(&asked.resume(id)?),
        (Route::Upload(_, id), &Method::PATCH) => asked.append(id, request, body).await,
        (Route::Upload(_, id), &Method::PUT) => asked.complete(id, request, body).await,
        (Route::Upload(_, id), &Method::DELETE) => {
            asked.store.uploads.end(asked.resume(id)?);
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        (Route::Tags(name), _) if reads => {
            let page = asked.store.existing(&asked.repository)?.tags(&asked.repository, None).await;
            lists::tags(&page.map_err(|error| store::problem(&error, Code::NameUnknown))?.names, name, request)
        }
        (Route::Referrers(_, digest), _) if reads => {
            if !asked.store.exists(&asked.repository) {
                return Ok(lists::referrers(&[], request));
            }
            let found = asked.store.layout(&asked.repository)?.referrers(&asked.repository, digest).await;
            Ok(lists::referrers(&found.map_err(|error| store::problem(&error, Code::NameUnknown))?, request))
        }
        _ => Err(Problem::unsupported("method not supported for this path")),
    }
}

impl Asked<'_> {
    async fn manifest(&self, version: &Version, request: &Parts) -> Result<Response<Body>, Problem> {
        manifests::answer(&manifest(self.store, &self.repository, version).await?, request)
    }

    async fn put(&self, version: &Version, request: &Parts, body: Body) -> Result<Response<Body>, Problem> {
        let raw = read_all(body, MANIFEST_LIMIT, self.patience.clone()).await?;
        let algorithm = match version {
            Version::Digest(digest) => digest.algorithm(),
            Version::Tag(_) => Algorithm::Sha256,
        };
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&raw);
        let digest = hasher.finish();
        let mut tags = tags(request)?;
        match version {
            Version::Digest(asked) if *asked != digest => {
                return Err(Problem::bad(Code::DigestInvalid, format!("the manifest has digest {digest}, not {asked}")));
            }
            Version::Digest(_) => {}
            Version::Tag(tag) => tags.push(tag.clone()),
        }
        let manifest = Manifest::parse(raw, digest).map_err(|error| Problem::bad(Code::ManifestInvalid, error.to_string()))?;
        let named = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if named.split(';').next().unwrap_or_default().trim() != manifest.media_type {
            let message = format!("Content-Type must be {}, the manifest's media type", manifest.media_type);
            return Err(Problem::bad(Code::ManifestInvalid, message));
        }
        let subject = manifest.subject().map(|subject| subject.digest);
        let accepted = self.store.layout(&self.repository)?.accept_manifest(manifest, tags.clone()).await;
        if let Some(missing) = accepted.map_err(|error| store::problem(&error, Code::ManifestUnknown))? {
            return Err(Problem::bad(Code::ManifestBlobUnknown, format!("the manifest needs {missing}, which the repository lacks")));
        }
        let mut response = self.created(&format!("manifests/{digest}"), &digest);
        let headers = response.headers_mut();
        if let Some(subject) = subject {
            headers.insert("oci-subject", digest_value(&subject));
        }
        for tag in tags.iter().filter_map(|tag| HeaderValue::from_str(tag.as_str()).ok()) {
            headers.append("oci-tag", tag);
        }
        Ok(response)
    }

    async fn delete(&self, version: &Version) -> Result<Response<Body>, Problem> {
        let layout = self.store.existing(&self.repository)?;
        let outcome = match version {
            Version::Tag(tag) => layout.remove_tag(tag.clone()).await,
            Version::Digest(digest) => layout.remove_manifest(*digest).await,
        };
        outcome.map_err(|error| deletion(&error, Code::ManifestUnknown))?;
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<Response<Body>, Problem> {
        let layout = self.store.existing(&self.repository)?;
        layout.delete_blob(&self.repository, digest).await.map_err(|error| deletion(&error, Code::BlobUnknown))?;
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    /// Starts an upload, takes a whole blob in one request, or mounts one from another repository.
    async fn begin(&self, request: &Parts, body: Body) -> Result<Response<Body>, Problem> {
        let parameter = |name| pages::parameter(request.uri.query(), name);
        if let Some(mounted) = parameter("mount") {
            let digest = route::digest(&mounted)?;
            if self.mounts(&digest, parameter("from")).await? {
                return Ok(self.created(&format!("blobs/{digest}"), &digest));
            }
        }
        let algorithm = match parameter("digest-algorithm").as_deref() {
            None | Some("sha256") => Algorithm::Sha256,
            Some("sha512") => Algorithm::Sha512,
            Some(_) => return Err(Problem::bad(Code::DigestInvalid, "digests are sha256 or sha512")),
        };
        if let Some(digest) = parameter("digest") {
            let digest = route::digest(&digest)?;
            let mut session = self.store.uploads.begin(&self.repository, self.user, digest.algorithm())?;
            if let Err(problem) = session.receive(body, u64::MAX, self.patience.clone()).await {
                self.store.uploads.end(session);
                return Err(problem);
            }
            return self.keep(session, digest).await;
        }
        let session = self.store.uploads.begin(&self.repository, self.user, algorithm)?;
        self.accepted(StatusCode::ACCEPTED, &session)
    }

    async fn mounts(&self, digest: &Digest, from: Option<String>) -> Result<bool, Problem> {
        let Some(from) = from.and_then(|from| Repository::parse(&from).ok()).filter(|from| (self.may_pull)(from)) else { return Ok(false) };
        let (store, digest, to) = (Arc::clone(self.store), *digest, self.repository.clone());
        blocking(move || store.mount(&digest, &from, &to)).await
    }

    fn resume(&self, id: &str) -> Result<Session, Problem> {
        self.store.uploads.resume(id, &self.repository, self.user)
    }

    fn status(&self, session: &Session) -> Result<Response<Body>, Problem> {
        self.accepted(StatusCode::NO_CONTENT, session)
    }

    async fn append(&self, id: &str, request: &Parts, body: Body) -> Result<Response<Body>, Problem> {
        let mut session = self.resume(id)?;
        let limit = self.in_order(&session, request)?;
        session.receive(body, limit, self.patience.clone()).await?;
        self.accepted(StatusCode::ACCEPTED, &session)
    }

    async fn complete(&self, id: &str, request: &Parts, body: Body) -> Result<Response<Body>, Problem> {
        let digest = pages::parameter(request.uri.query(), "digest");
        let digest = route::digest(&digest.ok_or_else(|| Problem::bad(Code::DigestInvalid, "the parameter `digest` is missing"))?)?;
        let mut session = self.resume(id)?;
        let limit = self.in_order(&session, request)?;
        session.receive(body, limit, self.patience.clone()).await?;
        self.keep(session, digest).await
    }

    /// Checks that a chunk starts at the current offset; returns its maximum length.
    fn in_order(&self, session: &Session, request: &Parts) -> Result<u64, Problem> {
        let text = |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let Some(named) = text(header::CONTENT_RANGE) else { return Ok(u64::MAX) };
        let range = uploaded(named).filter(|range| range.start == session.offset);
        let Some(range) = range else {
            let message = format!("the chunk does not begin at byte {}", session.offset);
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message);
            let problem = problem.with(header::RANGE, received(session));
            return Err(match self.location(session) {
                Some(location) => problem.with(header::LOCATION, location),
                None => problem,
            });
        };
        let length = range.end - range.start;
        match text(header::CONTENT_LENGTH).map(str::parse::<u64>) {
            Some(Ok(announced)) if length != announced => Err(Problem::bad(Code::SizeInvalid, "Content-Range and Content-Length disagree")),
            _ => Ok(length),
        }
    }

    /// Turns the received bytes into a blob.
    async fn keep(&self, mut session: Session, digest: Digest) -> Result<Response<Body>, Problem> {
        let (store, repository) = (Arc::clone(self.store), self.repository.clone());
        let kept = blocking(move || {
            let outcome = session.finish(&digest).and_then(|path| store.keep(&repository, &digest, path));
            // With a wrong digest the session is useless; after a full disk it may be retried.
            if outcome.as_ref().err().is_none_or(|problem| problem.code == Code::DigestInvalid) {
                store.uploads.end(session);
            }
            outcome
        });
        kept.await?;
        Ok(self.created(&format!("blobs/{digest}"), &digest))
    }

    fn created(&self, below: &str, digest: &Digest) -> Response<Body> {
        let mut response = respond::empty(StatusCode::CREATED);
        let headers = response.headers_mut();
        if let Ok(location) = HeaderValue::from_str(&format!("/v2/{}/{below}", self.repository)) {
            headers.insert(header::LOCATION, location);
        }
        headers.insert(DIGEST, digest_value(digest));
        response
    }

    fn location(&self, session: &Session) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("/v2/{}/blobs/uploads/{}", self.repository, session.id)).ok()
    }

    /// Reports an upload's offset and location.
    fn accepted(&self, status: StatusCode, session: &Session) -> Result<Response<Body>, Problem> {
        let mut response = respond::empty(status);
        let headers = response.headers_mut();
        headers.extend(self.location(session).map(|location| (header::LOCATION, location)));
        headers.insert(header::RANGE, received(session));
        if let Ok(id) = HeaderValue::from_str(&session.id) {
            headers.insert("docker-upload-uuid", id);
        }
        Ok(response)
    }
}

/// A manifest of a hosted repository.
pub(super) async fn manifest(store: &Store, repository: &Repository, version: &Version) -> Result<Manifest, Problem> {
    let found = store.existing(repository)?.manifest(repository, version).await;
    found.map_err(|error| match error.kind {
        // The store's path is none of the client's business.
        ErrorKind::NotFound => Problem::not_found(Code::ManifestUnknown, format!("{repository}{version} does not exist")),
        // The file exists but is not a manifest.
        ErrorKind::Integrity | ErrorKind::Unsupported => Problem::not_found(Code::ManifestUnknown, error.to_string()),
        _ => store::problem(&error, Code::ManifestUnknown),
    })
}

/// A blob of a hosted repository, as a response.
pub(super) async fn blob(store: &Arc<Store>, repository: &Repository, digest: &Digest, request: &Parts) -> Result<Response<Body>, Problem> {
    let (reading, repository, wanted, head) = (Arc::clone(store), repository.clone(), *digest, request.method == Method::HEAD);
    let opened = blocking(move || {
        let (file, size) = reading.blob(&repository, &wanted)?;
        if head {
            reading.note_use(&file);
        }
        Ok((file, size))
    });
    let (file, size) = opened.await?;
    let (mut response, range) = blobs::head(request, digest, size);
    if let Some(range) = range {
        *response.body_mut() = store::of_file(&store.verified, file, *digest, size, range);
    }
    Ok(response)
}

/// Runs store work on a blocking thread; it completes even if the client leaves.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    spawn_blocking(work).await.map_err(|error| Problem::of(error.kind, error.to_string(), Code::Unknown))?
}

fn received(session: &Session) -> HeaderValue {
    HeaderValue::from_str(&format!("0-{}", session.offset.saturating_sub(1))).unwrap_or(HeaderValue::from_static("0-0"))
}

/// The response to a refused deletion.
fn deletion(error: &Error, absent: Code) -> Problem {
    match error.kind {
        ErrorKind::Conflict => Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::Denied, error.to_string()),
        _ => store::problem(error, absent),
    }
}

/// The tags named in a query.
fn tags(request: &Parts) -> Result<Vec<Tag>, Problem> {
    let named: Vec<String> = pages::parameters(request.uri.query(), "tag").take(TAGS + 1).collect();
    if named.len() > TAGS {
        return Err(Problem::bad(Code::ManifestInvalid, format!("more than {TAGS} tags in one request")));
    }
    named.iter().map(|tag| Tag::parse(tag).map_err(|error| Problem::bad(Code::ManifestInvalid, error.to_string()))).collect()
}
