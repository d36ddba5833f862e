//! `/`: the repositories, page by page, with a search.

use axum::body::Body;
use axum::http::Response;
use axum::http::request::Parts;
use maud::{Markup, html};

use super::address::{Address, encoded};
use super::html::{host, page, text};
use crate::oci::Repository;
use crate::serve::access::Right;
use crate::serve::api::{self, Place};
use crate::serve::client::Client;
use crate::serve::problem::Problem;
use crate::serve::state::State;
use crate::serve::{lists, pages};

/// Names on one page.
pub(super) const ROWS: usize = 100;

/// Answers a request for the list of repositories.
pub(super) async fn answer(state: &State, client: &Client, request: &Parts) -> Result<Response<Body>, Problem> {
    let parameter = |name| pages::parameter(request.uri.query(), name).unwrap_or_default();
    let (search, last) = (parameter("q"), parameter("last"));
    let search = search.trim();
    let found = lists::repositories(state, client).await?;
    let names: Vec<String> = found.names.into_iter().filter(|name| fits(name, search)).collect();
    let (rows, rest) = slice(&names, &last);
    let readable = |repository: &Repository| state.access.allows(client.user(), repository, Right::Pull);
    let may_exist = |repository: &Repository| match api::find(state, request, repository) {
        Ok(Place::Upstream(..)) => true,
        Ok(Place::Store(store)) => store.exists(repository),
        Err(_) => false,
    };
    let typed = typed(search).filter(|typed| readable(&typed.repository) && may_exist(&typed.repository));
    let content = html! {
        h1 { @if search.is_empty() { "Repositories" } @else { "Repositories with “" (text(search)) "”" } }
        @if let Some(typed) = typed.filter(|typed| typed.version.is_some() || !names.iter().any(|name| name == typed.repository.as_str())) {
            p { "Open " a href=(typed.url(true)) { (text(&typed.reference())) } " by its name." }
        }
        @if rows.is_empty() { (nothing(search, host(request))) }
        (list(rows.iter().filter_map(|name| Address::of_reference(name).ok().map(|address| (name.as_str(), address.url(true))))))
        (more(rows.last().filter(|_| rest), &last, &format!("q={}", encoded(search))))
        @for prefix in &found.partial {
            p.note { "There may be more below " code { (text(prefix)) } ": that registry does not list its repositories. "
                "Type a full name such as " code { (text(prefix)) "/library/alpine" } " to open one." }
        }
    };
    Ok(page(request, "Repositories", search, &content))
}

/// Whether a name contains every search word.
fn fits(name: &str, search: &str) -> bool {
    search.to_lowercase().split_whitespace().all(|word| name.contains(word))
}

/// The repository or artifact that a search text names.
fn typed(search: &str) -> Option<Address> {
    let path = search.strip_prefix("http://").or(search.strip_prefix("https://")).unwrap_or(search);
    Address::of_reference(path).ok()
}

/// One page of a sorted list after a name, and whether more follow.
pub(super) fn slice<'a>(names: &'a [String], last: &str) -> (&'a [String], bool) {
    let from = names.partition_point(|name| name.as_str() <= last);
    let rest = names.get(from..).unwrap_or_default();
    (rest.get(..ROWS).unwrap_or(rest), rest.len() > ROWS)
}

/// Names with their addresses.
pub(super) fn list<'a>(rows: impl Iterator<Item = (&'a str, String)>) -> Markup {
    html! { ul.names { @for (name, url) in rows { li { a href=(url) { (text(name)) } } } } }
}

/// Links to the next page after a name, and back to the first.
pub(super) fn more(next: Option<&String>, last: &str, query: &str) -> Markup {
    html! {
        @if next.is_some() || !last.is_empty() {
            nav.pages aria-label="Pages" {
                @if !last.is_empty() { a rel="first" href={ "?" (query) } { "First page" } }
                @if let Some(next) = next { a rel="next" href={ "?" (query) "&last=" (encoded(next)) } { "Next page" } }
            }
        }
    }
}

fn nothing(search: &str, host: &str) -> Markup {
    html! {
        @if search.is_empty() {
            p { "There is nothing here yet. Push something:" }
            pre { code { "ocifs push " (text(host)) "/team/app:v1 ./data" } }
        } @else {
            p { "No repository name matches." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_search_must_occur() {
        assert!(fits("team/app", "") && fits("team/app", "APP") && fits("team/app", "app  te") && !fits("team/app", "app x"));
    }

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let names: Vec<String> = (0..250).map(|number| format!("r{number:03}")).collect();
        let (first, more) = slice(&names, "");
        assert_eq!((first.len(), more), (ROWS, true));
        let (last, more) = slice(&names, "r199");
        assert_eq!((last.first().map(String::as_str), last.len(), more), (Some("r200"), 50, false));
        assert_eq!(slice(&names, "zzz"), (&[][..], false));
    }

    #[test]
    fn a_typed_reference_can_be_opened() {
        assert_eq!(typed("docker/library/alpine:3").map(|address| address.url(true)).as_deref(), Some("/files/docker/library/alpine:3/"));
        assert_eq!(typed("<img onerror>"), None);
    }
}
