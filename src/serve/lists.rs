//! Lists of repositories, tags and referrers.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use super::access::Right;
use super::client::Client;
use super::pages::{self, page};
use super::problem::Problem;
use super::respond;
use super::state::State;
use super::store;
use crate::blocking::spawn_blocking;
use crate::oci::{Descriptor, Repository, document, media_type};

/// The repositories that a user may read.
pub(super) struct Repositories {
    /// Their names here, in order.
    pub(super) names: Vec<String>,
    /// Prefixes of upstreams that may have more.
    pub(super) partial: Vec<String>,
}

/// The readable repositories of the store and of all upstreams, the latter with their prefixes.
pub(super) async fn repositories(state: &State, client: &Client) -> Result<Repositories, Problem> {
    let (mut names, mut partial) = (BTreeSet::new(), Vec::new());
    for upstream in &state.upstreams().all {
        let found = upstream.repositories(client).await;
        if !found.as_ref().is_ok_and(|found| found.complete) {
            partial.push(upstream.prefix.clone());
        }
        match found {
            Ok(found) => names.extend(found.names.iter().map(|name| format!("{}/{name}", upstream.prefix))),
            // One unreachable upstream must not hide the others.
            Err(problem) => tracing::warn!("cannot list the repositories of {}: {}", upstream.registry, problem.message),
        }
    }
    if let Some(store) = &state.store {
        let store = std::sync::Arc::clone(store);
        let listed = spawn_blocking(move || store.repositories()).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        names.extend(listed.map_err(|error| store::of_disk(&error))?.iter().map(ToString::to_string));
    }
    let readable = |name: &String| Repository::parse(name).is_ok_and(|name| state.access.allows(client.user(), &name, Right::Pull));
    Ok(Repositories { names: names.into_iter().filter(readable).collect(), partial })
}

/// The answer to `_catalog`.
pub(super) async fn catalog(state: &State, client: &Client, request: &Parts) -> Result<Response<Body>, Problem> {
    let names = repositories(state, client).await?.names;
    let page = page(&names, request.uri.query(), "/v2/_catalog")?;
    Ok(linked(respond::json(request, json!({"repositories": page.names}).to_string()), page.link))
}

/// Sorted tags of a repository under its name here.
pub(super) fn tags(names: &[String], repository: &Repository, request: &Parts) -> Result<Response<Body>, Problem> {
    let page = page(names, request.uri.query(), &format!("/v2/{repository}/tags/list"))?;
    Ok(linked(respond::json(request, json!({"name": repository.as_str(), "tags": page.names}).to_string()), page.link))
}

fn linked(mut response: Response<Body>, link: Option<String>) -> Response<Body> {
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The referrers of a manifest as an index, filtered by `artifactType` if requested.
pub(super) fn referrers(found: &[Descriptor], request: &Parts) -> Response<Body> {
    let wanted = pages::parameter(request.uri.query(), "artifactType").filter(|wanted| !wanted.is_empty());
    let fits = |descriptor: &&Descriptor| wanted.as_deref().is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted));
    let manifests: Vec<Value> = found.iter().filter(fits).map(document::descriptor).collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let mut response = respond::json(request, index.to_string());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
    if wanted.is_some() {
        headers.insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    response
}
