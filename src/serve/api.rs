//! The distribution API: routes a name to an upstream or the store, and a method to its handler.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse;

use super::access::Right;
use super::client::Client;
use super::observe::User;
use super::pages;
use super::problem::{Code, Problem};
use super::route::Route;
use super::state::State;
use super::store::Store;
use super::upstream::Upstream;
use super::{blobs, hosted, lists, manifests, respond};
use crate::oci::{Registry, Repository};

/// The header in which containerd names the registry of a mirrored request, as in the `ns` parameter.
const NAMESPACE: &str = "oci-namespace";

/// Where a repository is served from.
pub(super) enum Place<'a> {
    /// An upstream, with the repository's name there.
    Upstream(Arc<Upstream>, Repository),
    /// The store.
    Store(&'a Arc<Store>),
}

/// Answers a request below `/v2`.
pub(super) async fn answer(state: &State, request: Request<Body>) -> Response<Body> {
    let (request, body) = request.into_parts();
    let mut client = Client::default();
    let route = Route::parse(request.uri.path());
    let kind = route.as_ref().ok().map(Route::kind);
    let outcome = match route {
        Ok(route) => dispatch(state, &route, &mut client, &request, body).await,
        Err(problem) => Err(problem),
    };
    let mut response = outcome.unwrap_or_else(IntoResponse::into_response);
    kind.map(|kind| response.extensions_mut().insert(kind));
    response.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    let mut response = client.hold(response);
    client.user.map(|user| response.extensions_mut().insert(User(user)));
    response
}

/// `client` is set once the client is known.
async fn dispatch(state: &State, route: &Route, client: &mut Client, request: &Parts, body: Body) -> Result<Response<Body>, Problem> {
    *client = state.client(&request.headers).await?;
    let user = client.user();
    state.access.check(user, route, &request.method)?;
    let reads = respond::reads(request);
    match route {
        Route::Base if reads => return Ok(respond::json(request, "{}")),
        Route::Catalog if reads => return lists::catalog(state, client, request).await,
        _ => {}
    }
    let Some(name) = route.repository() else { return Err(wrong_method(request)) };
    match place(state, client, route, request).await? {
        Place::Upstream(upstream, repository) => {
            let answer = read_upstream(&upstream, &repository, route, request).await?;
            upstream.confirm(client, &repository, route)?;
            Ok(answer)
        }
        Place::Store(store) => {
            let may_pull = |other: &Repository| state.access.allows(user, other, Right::Pull);
            let asked = hosted::Asked { store, repository: name.clone(), user, may_pull: &may_pull, patience: state.patience() };
            hosted::answer(asked, route, request, body).await
        }
    }
}

async fn read_upstream(upstream: &Upstream, repository: &Repository, route: &Route, request: &Parts) -> Result<Response<Body>, Problem> {
    match (route, respond::reads(request)) {
        (Route::Manifest(_, version), true) => manifests::of_upstream(upstream, repository, version, request).await,
        (Route::Blob(_, digest), true) => blobs::of_upstream(upstream, repository, digest, request).await,
        (Route::Tags(name), true) => lists::tags(&upstream.tags(repository).await?.names, name, request),
        (Route::Referrers(_, digest), true) => Ok(lists::referrers(&upstream.referrers(repository, digest).await?, request)),
        _ => Err(wrong_method(request)),
    }
}

fn wrong_method(request: &Parts) -> Problem {
    let message = if respond::reads(request) {
        "method not supported for this path"
    } else {
        "this repository is proxied from another registry and is read-only"
    };
    Problem::unsupported(message).with(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
}

/// The place that serves a route, once the client may read it.
///
/// # Errors
/// There is no such repository, or the upstream refuses the client's login.
pub(super) async fn place<'a>(state: &'a State, client: &Client, route: &Route, request: &Parts) -> Result<Place<'a>, Problem> {
    let name = route.repository().ok_or_else(|| wrong_method(request))?;
    let place = find(state, request, name)?;
    if let Place::Upstream(upstream, repository) = &place
        && !matches!(route, Route::Uploads(_) | Route::Upload(..))
        && respond::reads(request)
    {
        upstream.admit(client, repository, route).await?;
    }
    Ok(place)
}

/// The place that serves a name: the upstream the client names, the one with the name's prefix, or the default.
pub(super) fn find<'a>(state: &'a State, request: &Parts, name: &Repository) -> Result<Place<'a>, Problem> {
    let unknown = || Problem::not_found(Code::NameUnknown, format!("unknown repository {name}"));
    let there = |upstream: Arc<Upstream>, name: &str| {
        let repository = upstream.repository(name)?;
        Ok(Place::Upstream(upstream, repository))
    };
    let upstreams = state.upstreams();
    if let Some(namespace) = namespace(request) {
        let registry = Registry::parse(&namespace).map_err(|_| unknown())?;
        return there(upstreams.find(|upstream| upstream.registry == registry).ok_or_else(unknown)?, name.as_str());
    }
    let split = name.as_str().split_once('/');
    if let Some((prefix, rest)) = split
        && let Some(upstream) = upstreams.find(|upstream| upstream.prefix == prefix)
    {
        return there(upstream, rest);
    }
    let reads = respond::reads(request);
    match (upstreams.default(), &state.store) {
        // Hosted content takes precedence over an upstream's repository of the same name.
        (Some(upstream), Some(store)) if reads && !store.exists(name) => there(upstream, name.as_str()),
        (_, Some(store)) => Ok(Place::Store(store)),
        (Some(upstream), None) => there(upstream, name.as_str()),
        (None, None) => Err(unknown()),
    }
}

/// The registry that a mirrored request is for.
fn namespace(request: &Parts) -> Option<String> {
    let named = request.headers.get(NAMESPACE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    pages::parameter(request.uri.query(), "ns").or(named)
}
