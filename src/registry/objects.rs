//! Downloads objects from S3, as sources of packs.
//!
//! Keys, region and endpoint are settings named like the environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …), passed in by
//! the caller. An object arrives whole or as an error; no digest is checked.

use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::BlobStream;
use crate::error::{Error, ErrorKind};

/// Limit for connecting.
const CONNECT: Duration = Duration::from_secs(10);
/// Number of retries of a failed request.
const RETRIES: usize = 3;

/// An account of S3 or a compatible service.
#[derive(Clone, Debug)]
pub struct Objects {
    settings: Vec<(String, String)>,
    progress: Duration,
}

impl Objects {
    /// An account with settings by name; unknown names are ignored. A transfer fails after `progress` without progress.
    pub fn new(settings: Vec<(String, String)>, progress: Duration) -> Self {
        Self { settings, progress }
    }

    /// The bytes of an object. `plain_http`: the endpoint may lack TLS.
    ///
    /// # Errors
    /// Invalid for unusable settings; NotFound, Denied, and Unreachable for everything that may pass.
    pub async fn open(&self, bucket: &str, key: &str, plain_http: bool) -> Result<BlobStream, Error> {
        let what = format!("s3://{bucket}/{key}").escape_debug().to_string();
        let options = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT)
            .with_read_timeout(self.progress)
            .with_allow_http(plain_http);
        let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_client_options(options).with_retry(retry);
        for (name, value) in &self.settings {
            match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                // The Pack file decides whether plain HTTP is permitted.
                Ok(AmazonS3ConfigKey::Client(_)) | Err(_) => {}
                Ok(key) => builder = builder.with_config(key, value),
            }
        }
        let store = builder.with_bucket_name(bucket).build().map_err(|error| {
            let advice = if plain_http { "" } else { " (s3+http:// reaches one without TLS)" };
            Error::new(ErrorKind::Invalid, format!("{what}: {}{advice}", shown(&error)))
        })?;
        let path = Path::parse(key).map_err(|error| Error::new(ErrorKind::Invalid, format!("{what}: {}", shown(&error))))?;
        let answer = ObjectStore::get_opts(&store, &path, Default::default()).await.map_err(|error| failed(&what, &error))?;
        Ok(answer.into_stream().map(move |piece| piece.map_err(|error| failed(&what, &error))).boxed())
    }
}

fn failed(what: &str, error: &object_store::Error) -> Error {
    use object_store::Error as Theirs;
    let (kind, why) = match error {
        Theirs::NotFound { .. } => (ErrorKind::NotFound, "no such object".to_owned()),
        Theirs::PermissionDenied { .. } | Theirs::Unauthenticated { .. } => {
            (ErrorKind::Denied, "access denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION".to_owned())
        }
        other => (ErrorKind::Unreachable, shown(other)),
    };
    Error::new(kind, format!("{what}: {why}"))
}

/// The error chain in one line.
fn shown(error: &dyn std::error::Error) -> String {
    error.to_string().chars().take(400).collect::<String>().escape_debug().to_string()
}
