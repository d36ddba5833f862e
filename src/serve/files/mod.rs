//! Serves any file inside any artifact over HTTP, and pages for people.
//!
//! ```text
//! /                                   the repositories, with a search
//! /files/REPOSITORY                   its tags
//! /files/REPOSITORY:TAG/PATH          a file or directory of an artifact, also REPOSITORY@DIGEST
//! /files/REPOSITORY:TAG?title=TITLE   the layer with a title, as stored
//! ```
//!
//! Trees and bytes are those a mount shows; nothing is unpacked here. Access is checked as for `/v2`. Names and annotations are
//! untrusted: escaped in pages, encoded in headers, and files are sent so that no browser runs anything in them.

mod address;
mod artifact_page;
mod folder;
mod home;
mod html;
mod kinds;
mod links;
mod opened;
mod send;
mod tags_page;
mod wanted;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;

use self::address::Address;
use self::opened::Opened;
use self::wanted::Wanted;
use super::api::{self, Place};
use super::client::Client;
use super::metrics::Kind as MetricKind;
use super::observe::User;
use super::problem::{Code, Problem};
use super::route::Route;
use super::state::State;
use super::{blobs, hosted, manifests, pages, respond};
use crate::artifact::Kind;
use crate::oci::{Platform, Version};

/// The annotation that names a layer's file.
const TITLE: &str = "org.opencontainers.image.title";
/// Sent with everything: no content sniffing, no referrer, no framing, no cross-origin embedding.
const SAFETY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Whether this module serves a path.
pub(super) fn serves(path: &str) -> bool {
    matches!(path, "/" | "/files" | html::STYLE_PATH | html::ICON_PATH) || path.starts_with("/files/")
}

/// Answers a request for a page or a file.
pub(super) async fn answer(state: &State, request: &Parts) -> Response<Body> {
    let mut client = Client::default();
    let answered = dispatch(state, &mut client, request).await;
    let mut response = answered.unwrap_or_else(|problem| match wanted::wants_html(&request.headers) {
        true => html::problem(request, problem),
        false => problem.into_response(),
    });
    response.extensions_mut().insert(MetricKind::Page);
    for (name, value) in SAFETY {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let mut response = client.hold(response);
    client.user.map(|user| response.extensions_mut().insert(User(user)));
    response
}

/// `client` is set once the client is known.
async fn dispatch(state: &State, client: &mut Client, request: &Parts) -> Result<Response<Body>, Problem> {
    if !respond::reads(request) {
        let allowed = HeaderValue::from_static("GET, HEAD");
        return Err(Problem::unsupported("files and pages are read-only").with(header::ALLOW, allowed));
    }
    let address = match request.uri.path() {
        html::STYLE_PATH => return Ok(html::style(request)),
        html::ICON_PATH => return Ok(html::icon(request)),
        "/" | "/files" | "/files/" => None,
        path => Some(Address::parse(path)?),
    };
    *client = state.client(&request.headers).await?;
    let Some(address) = address else {
        state.access.check(client.user(), &Route::Catalog, &Method::GET)?;
        return home::answer(state, client, request).await;
    };
    let route = match &address.version {
        None => Route::Tags(address.repository.clone()),
        Some(version) => Route::Manifest(address.repository.clone(), version.clone()),
    };
    state.access.check(client.user(), &route, &Method::GET)?;
    let place = api::place(state, client, &route, request).await?;
    let response = match &address.version {
        None => tags_page::answer(&place, &address, request).await,
        Some(version) => artifact(state, &place, &address, version, request).await,
    }?;
    if let Place::Upstream(upstream, repository) = &place {
        upstream.confirm(client, repository, &route)?;
    }
    Ok(response)
}

/// A file or directory of an artifact, or one of its layers.
async fn artifact(
    state: &State,
    place: &Place<'_>,
    address: &Address,
    version: &Version,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let parameter = |name| pages::parameter(request.uri.query(), name);
    let platform = parameter("platform").filter(|platform| !platform.is_empty());
    let platform: Option<Platform> =
        platform.map(|text| text.parse()).transpose().map_err(|error: String| Problem::bad(Code::Unknown, error))?;
    let opened = Opened::find(state, place, address, version, platform.as_ref()).await?;
    let mut response = match parameter("title") {
        Some(title) => layer(place, address, &opened, platform.is_some(), &title, request).await?,
        None => file_or_folder(state, &opened, address, platform.as_ref(), request).await?,
    };
    if let (Some(age), Place::Upstream(upstream, _)) = (opened.stale, place) {
        manifests::mark_stale(&mut response, age, upstream.registry.as_str());
    }
    Ok(response)
}

async fn file_or_folder(
    state: &State,
    opened: &Opened<'_>,
    address: &Address,
    platform: Option<&Platform>,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let wanted = Wanted::of(&request.headers);
    let tree = match wanted {
        // A browser gets a waiting page that reloads itself.
        Wanted::Html => match tokio::time::timeout(html::PATIENCE, opened.tree()).await {
            Ok(tree) => tree,
            Err(_) => return Ok(html::being_read(request)),
        },
        Wanted::Anything | Wanted::Json => opened.tree().await,
    };
    let tree = match tree {
        Err(problem) if wanted == Wanted::Html && address.path.is_empty() => {
            // Its description is shown anyway.
            return artifact_page::without_files(state, opened, address, &problem, request).await;
        }
        tree => tree?,
    };
    let node = links::find(&tree.tree, &address.path).map_err(|lost| {
        Problem::not_found(Code::NameUnknown, format!("{} {} in {}", address.path_text(), lost.why(), address.reference()))
    })?;
    match tree.tree.node(node).map(|node| node.kind) {
        Some(Kind::File) => send::file(opened, &tree, node, address, request).await,
        Some(Kind::Directory) => {
            let folder = folder::Folder::of(&tree, node, address, platform, request)?;
            match wanted {
                Wanted::Json => folder.json(request),
                Wanted::Html | Wanted::Anything => artifact_page::answer(state, opened, address, &folder, request).await,
            }
        }
        _ => Err(Problem::new(StatusCode::FORBIDDEN, Code::Denied, format!("{} is neither a file nor a directory", address.path_text()))),
    }
}

/// The layer with a title, as stored.
async fn layer(
    place: &Place<'_>,
    address: &Address,
    opened: &Opened<'_>,
    has_platform: bool,
    title: &str,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    if title.is_empty() {
        return Err(Problem::bad(Code::NameInvalid, "the parameter `title` is empty"));
    }
    if !has_platform && !opened.platforms().is_empty() {
        return Err(Problem::bad(Code::ManifestInvalid, "the artifact has several platforms; choose one with the parameter `platform`"));
    }
    let layers = opened.description.shown.image().map(|image| image.layers.as_slice()).unwrap_or_default();
    let Some(layer) = layers.iter().find(|layer| layer.annotation(TITLE) == Some(title)) else {
        return Err(Problem::not_found(Code::BlobUnknown, format!("{} has no layer with that title", address.reference())));
    };
    let mut response = match place {
        Place::Upstream(upstream, repository) => blobs::of_upstream(upstream, repository, &layer.digest, request).await?,
        Place::Store(store) => hosted::blob(store, &address.repository, &layer.digest, request).await?,
    };
    let name = title.rsplit('/').find(|name| !name.is_empty()).unwrap_or_default();
    send::describe(&mut response, name.as_bytes(), address.is_pinned());
    Ok(response)
}
