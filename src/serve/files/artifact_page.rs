//! The page of an artifact: a directory of its files; at the root also its description, commands to get it, and its referrers.

use axum::body::Body;
use axum::http::Response;
use axum::http::request::Parts;
use maud::{Markup, html};

use super::TITLE;
use super::address::{Address, encoded};
use super::folder::{Folder, Row, query_of};
use super::html::{host, page, text};
use super::opened::Opened;
use crate::artifact::Dialect;
use crate::oci::{Descriptor, Digest, Platform, Registry, Version};
use crate::serve::problem::Problem;
use crate::serve::state::State;
use crate::view::shown::show_size;

/// Referrers on a page.
const REFERRERS: usize = 100;

/// Answers a request for a directory of an artifact.
pub(super) async fn answer(
    state: &State,
    opened: &Opened<'_>,
    address: &Address,
    folder: &Folder,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let platform: Option<Platform> = folder.platform.as_deref().and_then(|platform| platform.parse().ok());
    let content = if address.path.is_empty() {
        let referrers = opened.referrers().await;
        html! {
            (heading(address, &query_of(platform.as_ref())))
            (facts(opened, folder.platform.as_deref()))
            (platforms(opened, address, folder.platform.as_deref()))
            h2 { "Files" }
            (files(folder))
            (commands(state, opened, address, request))
            (details(opened, address, referrers.as_deref()))
        }
    } else {
        html! { (heading(address, &query_of(platform.as_ref()))) (files(folder)) }
    };
    Ok(page(request, &title(address), "", &content))
}

/// The page of an artifact whose files cannot be shown, with the reason.
pub(super) async fn without_files(
    state: &State,
    opened: &Opened<'_>,
    address: &Address,
    problem: &Problem,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let referrers = opened.referrers().await;
    let platform = opened.description.platform.as_ref().map(ToString::to_string);
    let content = html! {
        (heading(address, ""))
        (facts(opened, platform.as_deref()))
        (platforms(opened, address, platform.as_deref()))
        p.notice role="alert" { (text(&problem.message)) }
        (commands(state, opened, address, request))
        (details(opened, address, referrers.as_deref()))
    };
    let mut response = page(request, &title(address), "", &content);
    *response.status_mut() = problem.status;
    Ok(response)
}

fn title(address: &Address) -> String {
    match address.path.last() {
        Some(name) => format!("{} in {}", String::from_utf8_lossy(name), address.reference()),
        None => address.reference(),
    }
}

/// Breadcrumbs from the repository down to the directory.
fn heading(address: &Address, query: &str) -> Markup {
    let version = match &address.version {
        Some(Version::Digest(digest)) => format!("@{}:{}", digest.algorithm().name(), digest.short()),
        Some(Version::Tag(tag)) => format!(":{tag}"),
        None => String::new(),
    };
    let root = address.ancestor(0);
    html! {
        h1.way {
            a href=(address.with_version(None).url(true)) { (text(address.repository.as_str())) }
            wbr;
            @if address.path.is_empty() { span { (text(&version)) } } @else { a href={ (root.url(true)) (query) } { (text(&version)) } }
            @for (depth, name) in address.path.iter().enumerate() {
                " / "
                @let name = String::from_utf8_lossy(name);
                @if depth + 1 == address.path.len() { span { (text(&name)) } }
                @else { a href={ (address.ancestor(depth + 1).url(true)) (query) } { (text(&name)) } }
            }
        }
    }
}

fn facts(opened: &Opened<'_>, platform: Option<&str>) -> Markup {
    let description = &opened.description;
    let kind = match description.dialect {
        Dialect::Image => "container image",
        Dialect::Members => "index of several artifacts",
        Dialect::Files => "files",
        Dialect::Archive => "archive",
        Dialect::Blobs => "blobs",
        Dialect::OciSync => "encrypted or plain archive of oci-sync",
        Dialect::Sealed => "sealed artifact",
    };
    html! {
        dl.facts {
            dt { "Digest" } dd { code.digest { (description.manifest.digest.to_string()) } }
            dt { "Kind" } dd { (kind) @if description.is_encrypted() { ", encrypted" } }
            dt { "Media type" } dd { (text(&description.manifest.media_type)) }
            @if let Some(kind) = description.shown.artifact_type() { dt { "Artifact type" } dd { (text(kind)) } }
            @if let Some(platform) = platform { dt { "Platform" } dd { (text(platform)) } }
            dt { "Size" } dd { (show_size(description.size())) " as stored" }
        }
        @if let Some(age) = opened.stale {
            p.notice { "The registry does not answer; this is its content from " (age.as_secs()) " s ago." }
        }
        @for warning in &description.warnings { p.note { (text(warning)) } }
    }
}

fn platforms(opened: &Opened<'_>, address: &Address, chosen: Option<&str>) -> Markup {
    let platforms: Vec<String> = opened.platforms().iter().map(ToString::to_string).collect();
    html! {
        @if !platforms.is_empty() {
            nav.platforms aria-label="Platforms" {
                @for platform in &platforms {
                    @let url = format!("{}?platform={}", address.with_version(address.version.clone()).url(true), encoded(platform));
                    @if Some(platform.as_str()) == chosen { a href=(url) aria-current="true" { (text(platform)) } }
                    @else { a href=(url) { (text(platform)) } }
                }
            }
        }
    }
}

fn files(folder: &Folder) -> Markup {
    html! {
        @if folder.entries.is_empty() { p { "This directory is empty." } } @else {
            table.files {
                thead { tr {
                    th scope="col" { "Name" } th.number scope="col" { "Size" } th.wide scope="col" { "Mode" }
                    th.wide scope="col" { "Modified" } th.wide scope="col" { "SHA-256" }
                } }
                tbody { @for row in &folder.entries { (file(row)) } }
            }
        }
        @if let Some(next) = &folder.next { nav.pages aria-label="Pages" { a rel="next" href=(next) { "Next page" } } }
    }
}

fn file(row: &Row) -> Markup {
    let (entry, is_directory) = (&row.entry, row.entry.kind == "directory");
    let is_opened = matches!(entry.kind, "directory" | "file" | "symlink");
    html! {
        tr class=(entry.kind) {
            td.name {
                @if is_opened { a href=(row.url) { (text(&row.name)) @if is_directory { "/" } } } @else { (text(&row.name)) }
                @if let Some(target) = &entry.target { span.target { " → " (text(target)) } }
            }
            td.number { @if entry.kind == "file" { (show_size(entry.size)) } }
            td.wide { code { (entry.mode) } }
            td.wide { time datetime=(entry.modified) { (entry.modified.get(..16).unwrap_or(&entry.modified).replace('T', " ")) } }
            td.wide { @if let Some(sha256) = &entry.sha256 { code title=(sha256) { (sha256.get(..12).unwrap_or(sha256)) } } }
        }
    }
}

/// Commands to get the artifact; for a remote plain-HTTP server they include the flag for it.
fn commands(state: &State, opened: &Opened<'_>, address: &Address, request: &Parts) -> Markup {
    let host = host(request);
    let is_plain = state.certificate.is_none() && !Registry::parse(host).is_ok_and(|registry| registry.is_loopback());
    let flag = if is_plain { "--plain-http " } else { "" };
    let reference = format!("{host}/{}", address.reference());
    let name = address.repository.as_str().rsplit('/').next().unwrap_or_default();
    let scheme = if state.certificate.is_some() { "https" } else { "http" };
    html! {
        h2 { "Use it" }
        pre { code {
            "ocifs mount " (flag) (text(&reference)) " ~/" (text(name)) "\n"
            "ocifs pull " (flag) (text(&reference)) " ./" (text(name)) "\n"
            @if matches!(opened.description.dialect, Dialect::Image) { "podman pull " @if is_plain { "--tls-verify=false " } (text(&reference)) "\n" }
            "curl -H 'Accept: application/json' " (scheme) "://" (text(host)) (text(&address.ancestor(0).url(true)))
        } }
    }
}

fn details(opened: &Opened<'_>, address: &Address, referrers: Result<&[Descriptor], &Problem>) -> Markup {
    let shown = &opened.description.shown;
    let layers = shown.image().map(|image| image.layers.as_slice()).unwrap_or_default();
    html! {
        @if !layers.is_empty() {
            h2 { "Layers" }
            table.layers {
                thead { tr { th scope="col" { "Digest" } th.number scope="col" { "Size" } th.wide scope="col" { "Media type" } } }
                tbody { @for layer in layers { tr {
                    td.name {
                        a href={ "/v2/" (address.repository.as_str()) "/blobs/" (layer.digest.to_string()) } download {
                            code title=(layer.digest.to_string()) { (layer.digest.short()) }
                        }
                        @if let Some(title) = layer.annotation(TITLE) { " " (text(title)) }
                    }
                    td.number { (show_size(layer.size)) }
                    td.wide { (text(&layer.media_type)) }
                } } }
            }
        }
        @if !shown.annotations().is_empty() {
            h2 { "Annotations" }
            dl.facts { @for (key, value) in shown.annotations() { dt { (text(key)) } dd { (text(value)) } } }
        }
        @if let Some(subject) = shown.subject() { h2 { "Refers to" } p { (digest(address, &subject.digest)) } }
        h2 { "Referrers" }
        @match referrers {
            Err(problem) => { p.note { "Cannot be listed: " (text(&problem.message)) } }
            Ok([]) => { p { "Nothing refers to this artifact." } }
            Ok(found) => {
                ul.referrers { @for referrer in found.iter().take(REFERRERS) { li {
                    (digest(address, &referrer.digest)) " "
                    (text(referrer.artifact_type.as_deref().unwrap_or(&referrer.media_type))) " " span.note { (show_size(referrer.size)) }
                } } }
                @if found.len() > REFERRERS { p.note { "and " (found.len() - REFERRERS) " more" } }
            }
        }
    }
}

/// A link to another artifact of the repository.
fn digest(address: &Address, digest: &Digest) -> Markup {
    let url = address.with_version(Some(Version::Digest(*digest))).url(true);
    html! { a href=(url) { code title=(digest.to_string()) { (digest.short()) } } }
}
