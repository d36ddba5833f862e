//! One conformance suite for all implementations, and servers that misbehave by script.

mod access;
mod authority;
mod deleting;
mod faults;
mod manifests;
pub(crate) mod memory;
mod mirrors;
mod real;
mod reference;
mod scripted;
mod strangers;
mod suite;
mod tls;
mod uploads;
mod writable;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use super::{Credentials, HttpConfig, HttpRegistry, Timing, UploadSizes};
use crate::error::Error;
use crate::oci::{Registry, Repository, Tag, Version};

/// Short waits, so that retries take no time.
fn quick() -> Timing {
    Timing { backoff: Duration::from_millis(1), ..Timing::default() }
}

fn config(authority: &str) -> HttpConfig {
    HttpConfig { timing: quick(), ..HttpConfig::new(Registry::parse(authority).unwrap()) }
}

fn client(authority: &str) -> HttpRegistry {
    HttpRegistry::new(config(authority)).unwrap()
}

/// A client with one credential file of this content.
fn client_with(
    authority: &str,
    directory: &tempfile::TempDir,
    content: &serde_json::Value,
    change: impl FnOnce(&mut HttpConfig),
) -> HttpRegistry {
    let file = directory.path().join("auth.json");
    std::fs::write(&file, content.to_string()).unwrap();
    let mut config = config(authority);
    config.credentials = Arc::new(Credentials::new(vec![file], Vec::new()));
    change(&mut config);
    HttpRegistry::new(config).unwrap()
}

/// Makes requests so small that a blob of a few thousand bytes takes several.
fn small_requests(config: &mut HttpConfig) {
    config.upload = UploadSizes { whole: 1000, chunk: 1000, smallest: 100 };
}

fn repository() -> Repository {
    Repository::parse("team/app").unwrap()
}

fn tag(text: &str) -> Version {
    Version::Tag(Tag::parse(text).unwrap())
}

async fn collect(stream: super::BlobStream) -> Result<Vec<u8>, Error> {
    use futures_util::TryStreamExt;
    stream
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}
