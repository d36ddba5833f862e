//! One page of a directory of an artifact, as values and as JSON.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, header};
use serde::Serialize;

use super::address::{Address, encoded};
use crate::artifact::{Artifact, Kind, NodeId};
use crate::oci::Platform;
use crate::path;
use crate::serve::pages;
use crate::serve::problem::{Code, Problem};
use crate::serve::respond;
use crate::view::{Defaults, Entry};

/// Names on one page.
const ROWS: usize = 1000;
/// Attributes for entries without any in the archive, where a mount would show its user.
const DEFAULTS: Defaults = Defaults { uid: 0, gid: 0, time: (0, 0), force_uid: None, force_gid: None, file_mode: None, dir_mode: None };

/// One name.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// The name, in text.
    pub(super) name: String,
    /// Everything about it.
    #[serde(flatten)]
    pub(super) entry: Entry,
    /// Its URL.
    pub(super) url: String,
}

/// One page of a directory. The keys are stable.
#[derive(Debug, Serialize)]
pub(super) struct Folder {
    /// Repository with tag or digest.
    reference: String,
    /// Digest of the manifest.
    digest: String,
    /// The dialect.
    kind: &'static str,
    /// Platform selected from an index.
    pub(super) platform: Option<String>,
    /// Path of the directory, without slashes at its ends.
    path: String,
    /// The names, sorted by their bytes.
    pub(super) entries: Vec<Row>,
    /// URL of the next page, if there is one.
    pub(super) next: Option<String>,
}

impl Folder {
    /// The page of a directory after the cookie `after` of the request.
    ///
    /// # Errors
    /// `after` is not a number.
    pub(super) fn of(
        artifact: &Artifact,
        node: NodeId,
        address: &Address,
        platform: Option<&Platform>,
        request: &Parts,
    ) -> Result<Self, Problem> {
        let after = pages::parameter(request.uri.query(), "after").unwrap_or_default();
        let after = if after.is_empty() { Ok(0) } else { after.parse::<u64>() };
        let after = after.map_err(|_| Problem::bad(Code::PaginationNumberInvalid, "after must be a non-negative number"))?;
        let query = query_of(platform);
        let tree = &artifact.tree;
        let mut children = tree.children(node, after);
        let (mut entries, mut cookie) = (Vec::new(), after);
        for child in children.by_ref().take(ROWS) {
            cookie = child.cookie;
            let mut below = address.clone();
            below.path.push(child.name.to_vec());
            let shown = String::from_utf8_lossy(&path::join(&address.path.join(&b'/'), child.name)).into_owned();
            let Some(entry) = Entry::new(tree, &DEFAULTS, child.node, shown) else { continue };
            let is_directory = tree.node(child.node).is_some_and(|node| node.kind == Kind::Directory);
            let name = String::from_utf8_lossy(child.name).into_owned();
            entries.push(Row { name, entry, url: format!("{}{query}", below.url(is_directory)) });
        }
        let separator = if query.is_empty() { '?' } else { '&' };
        let next = children.next().map(|_| format!("{}{query}{separator}after={cookie}", address.url(true)));
        Ok(Self {
            reference: address.reference(),
            digest: artifact.manifest.digest.to_string(),
            kind: artifact.dialect.name(),
            platform: artifact.platform.as_ref().map(ToString::to_string),
            path: address.path_text(),
            entries,
            next,
        })
    }

    /// The JSON response.
    pub(super) fn json(&self, request: &Parts) -> Result<Response<Body>, Problem> {
        let text = serde_json::to_string(self).map_err(|error| Problem::bad(Code::Unknown, error.to_string()))?;
        let mut response = respond::json(request, text);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Ok(response)
    }
}

/// The query string that preserves a platform.
pub(super) fn query_of(platform: Option<&Platform>) -> String {
    platform.map(|platform| format!("?platform={}", encoded(&platform.to_string()))).unwrap_or_default()
}
