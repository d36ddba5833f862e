//! Lists of tags, repositories and referrers, page by page.
//!
//! A cursor is the path and query of the registry's own `Link`, so it never leads to another host. Pages are at most 8 MiB; a list that
//! does not advance is an error.

use futures_util::{StreamExt, stream};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::super::Page;
use super::authorize::Scope;
use super::exchange::{Call, Whole};
use super::shared::Http;
use super::{manifest, origin};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag, Version, media_type};

/// Largest page, in bytes.
const LIMIT: u64 = 8 << 20;
/// Names requested per page; some registries reject more.
const COUNT: u32 = 1000;
/// Most referrers of one manifest.
const REFERRERS: usize = 10_000;
/// Most pages of referrers, and most bytes of them all.
const REFERRER_PAGES: usize = 100;
const REFERRER_BYTES: usize = 32 << 20;
/// Retries of the referrers API: the fallback tag may still have the list.
const RETRIES: u32 = 1;
/// Most referrers whose manifest is read because their entry lacks a type, and how many at once.
const UNNAMED: usize = 256;
const AT_ONCE: usize = 8;

#[derive(Deserialize)]
struct NamesPage {
    #[serde(alias = "repositories")]
    tags: Option<Vec<String>>,
}

/// One page of tags.
pub(super) async fn tags(http: &Http, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
    let path = format!("v2/{repository}/tags/list");
    let call = call(http, format!("tags of {}/{repository}", http.registry), &path, after, Scope::Tags(repository.clone()))?;
    let answer = http.exchange.fetch(&call, LIMIT).await?;
    match (answer.status.as_u16(), after) {
        (200, _) => names(&call, &answer, after),
        (404, Some(_)) => {
            // Some registries reject a cursor whose tag was deleted meanwhile; the repository still exists.
            Err(Error::new(ErrorKind::Conflict, format!("{}: the list changed while it was read", call.what)))
        }
        _ => Err(http.exchange.refused(&call, answer.status, &answer.headers, &answer.body).await),
    }
}

/// One page of repositories.
pub(super) async fn repositories(http: &Http, after: Option<&str>) -> Result<Page, Error> {
    let call = call(http, format!("repositories of {}", http.registry), "v2/_catalog", after, Scope::Catalog)?;
    let answer = match http.exchange.fetch(&call, LIMIT).await {
        // If the token server does not grant the catalog scope, the registry has no catalog for us.
        Err(error) if error.kind == ErrorKind::Denied => return Err(Error::new(ErrorKind::Unsupported, error.message)),
        other => other?,
    };
    match answer.status.as_u16() {
        200 => names(&call, &answer, after),
        401 | 403 | 404 | 405 | 501 => {
            let refused = http.exchange.refused(&call, answer.status, &answer.headers, &answer.body).await;
            Err(refused.with_kind(ErrorKind::Unsupported))
        }
        _ => Err(http.exchange.refused(&call, answer.status, &answer.headers, &answer.body).await),
    }
}

/// All referrers of a manifest, from the API or the fallback tag. A list that cannot be read is an error, never an empty list.
pub(super) async fn referrers(http: &Http, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
    let mut found = match by_api(http, repository, subject).await {
        Ok(Some(found)) => found,
        Ok(None) => by_tag(http, repository, subject).await?.unwrap_or_default(),
        // A registry that refuses this may still have the tag.
        Err(error) => match by_tag(http, repository, subject).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => return Err(error),
        },
    };
    let unnamed = |entry: &Descriptor| entry.artifact_type.as_deref() == Some(media_type::OCI_EMPTY);
    let places: Vec<(usize, Digest)> =
        found.iter().enumerate().filter(|(_, entry)| unnamed(entry)).map(|(at, entry)| (at, entry.digest)).take(UNNAMED).collect();
    let reading = places.into_iter().map(|(at, digest)| named(http, repository, at, digest)).collect::<Vec<_>>();
    for (at, named) in stream::iter(reading).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        if let (Some(entry), Some(named)) = (found.get_mut(at), named) {
            entry.artifact_type = named;
        }
    }
    Ok(found)
}

/// The descriptor of a referrer; `None` if it cannot be read, so that the others are still listed.
async fn named(http: &Http, repository: &Repository, at: usize, digest: Digest) -> (usize, Option<Option<String>>) {
    let manifest = manifest::read(http, repository, &Version::Digest(digest)).await;
    (at, manifest.ok().map(|manifest| manifest.artifact_type().map(str::to_owned)))
}

/// The API's answer; `None` if the registry has no referrers API.
async fn by_api(http: &Http, repository: &Repository, subject: &Digest) -> Result<Option<Vec<Descriptor>>, Error> {
    let path = format!("v2/{repository}/referrers/{subject}");
    let what = format!("referrers of {}/{repository}@{subject}", http.registry);
    let (mut found, mut bytes) = (Vec::<Descriptor>::new(), 0);
    let mut after: Option<String> = None;
    for page in 0..REFERRER_PAGES {
        let mut call = call(http, what.clone(), &path, after.as_deref(), Scope::Content(repository.clone()))?;
        call.accept = Some(media_type::OCI_INDEX.to_owned());
        // Another host's error page for an unknown path is an answer too.
        call.elsewhere_counts = true;
        let answer = http.exchange.fetch_within(&call, LIMIT, http.exchange.attempts().at_most(RETRIES)).await?;
        let status = answer.status.as_u16();
        // The specification says 404; servers without the API also answer with these, or with a page of their own.
        if page == 0 && is_missing(&answer) {
            return Ok(None);
        }
        if status != 200 {
            return Err(http.exchange.refused(&call, answer.status, &answer.headers, &answer.body).await);
        }
        let next = next(&call, &answer.headers, after.as_deref())?;
        let index = Manifest::parse(answer.body.clone(), Digest::of(&answer.body)).map_err(|error| broken(&what, &error.to_string()))?;
        found.extend(index.index().map(|index| index.manifests.clone()).unwrap_or_default());
        bytes += answer.body.len();
        if found.len() > REFERRERS || bytes > REFERRER_BYTES {
            return Err(broken(&what, "more than 10,000, or more than 32 MiB"));
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(Some(found)),
        }
    }
    Err(broken(&what, "more than 100 pages"))
}

/// The fallback tag for the referrers API.
pub(super) fn fallback(subject: &Digest) -> Result<Tag, Error> {
    // The schema truncates algorithm and digits to 32 and 64 characters.
    let name = format!("{}-{}", subject.algorithm().name(), subject.hex().chars().take(64).collect::<String>());
    Tag::parse(&name).map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
}

/// Whether the registry links referrers itself.
pub(super) async fn keeps_referrers(http: &Http, repository: &Repository, subject: &Digest) -> Result<bool, Error> {
    let what = format!("referrers of {}/{repository}@{subject}", http.registry);
    let mut call = call(http, what, &format!("v2/{repository}/referrers/{subject}"), None, Scope::Content(repository.clone()))?;
    call.accept = Some(media_type::OCI_INDEX.to_owned());
    call.elsewhere_counts = true;
    let attempts = http.exchange.attempts_to_write().at_most(RETRIES);
    match http.exchange.fetch_within(&call, LIMIT, attempts).await {
        // Unknown; a redundant entry under the tag does no harm.
        Err(error) if error.kind == ErrorKind::Unreachable => Ok(false),
        Err(error) => Err(error),
        Ok(answer) if is_missing(&answer) => Ok(false),
        Ok(answer) if answer.status == StatusCode::OK => Ok(true),
        Ok(answer) => Err(http.exchange.refused(&call, answer.status, &answer.headers, &answer.body).await),
    }
}

/// Whether a response means that there is no referrers API.
fn is_missing(answer: &Whole) -> bool {
    let status = answer.status.as_u16();
    matches!(status, 300..=399 | 400 | 404 | 405 | 501) || answer.elsewhere && status != 200 || status == 200 && !is_index(&answer.headers)
}

/// The referrers tag schema: an index under the tag `sha256-<hex>`; `None` if the tag does not exist.
async fn by_tag(http: &Http, repository: &Repository, subject: &Digest) -> Result<Option<Vec<Descriptor>>, Error> {
    let tag = fallback(subject)?;
    match manifest::read(http, repository, &Version::Tag(tag)).await {
        Ok(manifest) => Ok(Some(manifest.index().map(|index| index.manifests.clone()).unwrap_or_default())),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_index(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim() == media_type::OCI_INDEX
}

fn call(http: &Http, what: String, path: &str, after: Option<&str>, scope: Scope) -> Result<Call, Error> {
    let mut url = http.url(path)?;
    match after {
        None if matches!(scope, Scope::Content(_)) => {}
        None => url.set_query(Some(&format!("n={COUNT}"))),
        Some(after) => {
            let next = origin::link(&url, after).map_err(|why| broken(&what, &why))?;
            if next.path() != url.path() {
                return Err(broken(&what, "the next page is at another path"));
            }
            url = next;
        }
    }
    Ok(Call::new(what, Method::GET, url, scope))
}

fn names(call: &Call, answer: &Whole, after: Option<&str>) -> Result<Page, Error> {
    let names: NamesPage = serde_json::from_slice(&answer.body)
        .map_err(|error| broken(&call.what, &format!("the response is not a list of names: {}", error.to_string().escape_debug())))?;
    Ok(Page { names: names.tags.unwrap_or_default(), next: next(call, &answer.headers, after)? })
}

/// The next page, as path and query.
fn next(call: &Call, headers: &HeaderMap, after: Option<&str>) -> Result<Option<String>, Error> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let Some(target) = links.flat_map(targets).next() else { return Ok(None) };
    let url = origin::link(&call.url, &target).map_err(|why| broken(&call.what, &why))?;
    if url.path() != call.url.path() {
        return Err(broken(&call.what, "the next page is at another path"));
    }
    let next = relative(&url);
    if Some(next.as_str()) == after || next == relative(&call.url) {
        return Err(broken(&call.what, "the list does not advance"));
    }
    Ok(Some(next))
}

fn relative(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// The targets of `rel="next"` in one header: `<target>; rel="next", …`.
fn targets(header: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else { break };
        let parameters = after.split('<').next().unwrap_or_default();
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.trim().split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            found.push(target.trim().to_owned());
        }
        rest = after;
    }
    found
}

fn broken(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Integrity, format!("{what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_other_links() {
        assert_eq!(targets(r#"</v2/_catalog?last=b%2Fbb&n=2>; rel="next""#), ["/v2/_catalog?last=b%2Fbb&n=2"]);
        assert_eq!(targets(r#"</first>; rel=first, </next>;title="x";rel=next"#), ["/next"]);
        assert!(targets(r#"</x>; rel="prev""#).is_empty());
        assert!(targets("garbage <").is_empty());
    }
}
