//! The frame of every page, its stylesheet and icon, and the error and waiting pages.
//!
//! Templates escape everything they show. Control characters and direction marks in names are shown as escapes, so that a name cannot
//! disguise itself.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use maud::{DOCTYPE, Markup, html};

use crate::oci::Digest;
use crate::serve::problem::Problem;
use crate::serve::respond;
use crate::view::shown;

/// Path of the stylesheet.
pub(super) const STYLE_PATH: &str = "/style.css";
/// Path of the icon.
pub(super) const ICON_PATH: &str = "/icon.svg";
/// How long a browser waits for an artifact read for the first time, before it gets a waiting page.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);
/// A page may load its own stylesheet and icon, and submit the search; nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");

/// The URL of the stylesheet, which changes with its content.
static STYLE_URL: LazyLock<String> = LazyLock::new(|| format!("{STYLE_PATH}?{}", Digest::of(STYLE.as_bytes()).short()));

/// A page with a title and the search text.
pub(super) fn page(request: &Parts, title: &str, search: &str, content: &Markup) -> Response<Body> {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (shown::visible(title)) " · ocifs" }
                link rel="stylesheet" href=(*STYLE_URL);
                link rel="icon" type="image/svg+xml" href=(ICON_PATH);
            }
            body {
                header.top {
                    a.brand href="/" { "ocifs" }
                    form role="search" method="get" action="/" {
                        input type="search" name="q" value=(search) maxlength="300" autocomplete="off" spellcheck="false"
                            placeholder="Search repositories" aria-label="Search repositories";
                        button type="submit" { "Search" }
                    }
                }
                main { (content) }
            }
        }
    };
    let mut response = respond::typed(request, "text/html; charset=utf-8", markup.into_string());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Text from a registry, escaped so that none of it is hidden or reordered.
pub(super) fn text(text: &str) -> Markup {
    html! { bdi { (shown::visible(text)) } }
}

/// An error page.
pub(super) fn problem(request: &Parts, problem: Problem) -> Response<Body> {
    let what = problem.status.canonical_reason().unwrap_or("Error");
    let content = html! {
        h1 { (what) }
        p.notice role="alert" { (text(&problem.message)) }
        p { a href="/" { "All repositories" } }
    };
    let mut response = page(request, what, "", &content);
    *response.status_mut() = problem.status;
    response.headers_mut().extend(problem.headers);
    response
}

/// The waiting page for an artifact that is still being read; it reloads itself.
pub(super) fn being_read(request: &Parts) -> Response<Body> {
    let content = html! {
        h1 { "Reading the artifact" }
        p.notice role="status" {
            "This artifact is being read for the first time: its archives must be read once before their files can be listed. "
            "This page reloads in a few seconds."
        }
    };
    let mut response = page(request, "Reading the artifact", "", &content);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3"));
    response.headers_mut().insert(header::REFRESH, HeaderValue::from_static("3"));
    response
}

/// The stylesheet.
pub(super) fn style(request: &Parts) -> Response<Body> {
    constant(request, "text/css; charset=utf-8", STYLE)
}

/// The icon.
pub(super) fn icon(request: &Parts) -> Response<Body> {
    constant(request, "image/svg+xml", ICON)
}

fn constant(request: &Parts, media_type: &'static str, content: &'static str) -> Response<Body> {
    let mut response = respond::typed(request, media_type, content);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// The host the request was sent to, for use in commands.
pub(super) fn host(request: &Parts) -> &str {
    let named = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri.authority().map(|authority| authority.as_str()).or(named).unwrap_or("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_becomes_markup() {
        let shown = text("<img src=x onerror=alert(1)>&\"'").into_string();
        assert_eq!(shown, "<bdi>&lt;img src=x onerror=alert(1)&gt;&amp;&quot;'</bdi>");
        let attribute = html! { a href=("/\" onclick=\"x") title=("<'>") {} }.into_string();
        assert_eq!(attribute, "<a href=\"/&quot; onclick=&quot;x\" title=\"&lt;'&gt;\"></a>");
    }

    #[test]
    fn text_cannot_hide_or_reorder_itself() {
        assert_eq!(text("txt.\u{202e}exe\n\0").into_string(), "<bdi>txt.\\u{202e}exe\\n\\u{0}</bdi>");
    }
}
