//! A repository: its tags, page by page.

use axum::body::Body;
use axum::http::Response;
use axum::http::request::Parts;
use maud::html;

use super::address::{Address, encoded};
use super::home::{list, more, slice};
use super::html::{host, page, text};
use crate::oci::{Tag, Version};
use crate::registry::Pull;
use crate::serve::api::Place;
use crate::serve::problem::{Code, Problem};
use crate::serve::{pages, store};

/// Answers a request for a repository.
pub(super) async fn answer(place: &Place<'_>, address: &Address, request: &Parts) -> Result<Response<Body>, Problem> {
    let (mut tags, complete) = match place {
        Place::Upstream(upstream, repository) => {
            let found = upstream.tags(repository).await?;
            (found.names.to_vec(), found.complete)
        }
        Place::Store(store) => {
            let found = store.existing(&address.repository)?.tags(&address.repository, None).await;
            (found.map_err(|error| store::problem(&error, Code::NameUnknown))?.names, true)
        }
    };
    let parameter = |name| pages::parameter(request.uri.query(), name).unwrap_or_default();
    let (search, last) = (parameter("tag"), parameter("last"));
    let search = search.trim();
    tags.retain(|tag| tag.contains(search));
    let (rows, rest) = slice(&tags, &last);
    let name = address.repository.as_str();
    let of = |tag: &str| Tag::parse(tag).ok().map(|tag| address.with_version(Some(Version::Tag(tag))));
    let content = html! {
        h1 { (text(name)) }
        p.note { "Mounts as a directory of all its tags:" }
        pre { code { "ocifs mount " (text(host(request))) "/" (text(name)) " ~/" (text(name.rsplit('/').next().unwrap_or(name))) } }
        h2 { "Tags" }
        @if tags.len() > super::home::ROWS || !search.is_empty() {
            form.filter method="get" {
                input type="search" name="tag" value=(search) placeholder="Filter tags" aria-label="Filter tags" autocomplete="off";
                button type="submit" { "Filter" }
            }
        }
        @if rows.is_empty() { p { "No tags." } }
        (list(rows.iter().filter_map(|tag| of(tag).map(|address| (tag.as_str(), address.url(true))))))
        (more(rows.last().filter(|_| rest), &last, &format!("tag={}", encoded(search))))
        @if !complete { p.note { "The registry did not list its tags; only those known here are shown." } }
    };
    Ok(page(request, name, "", &content))
}
