//! TLS with a certificate that is reloaded when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// When the two files were last modified.
type Stamp = [Option<SystemTime>; 2];

/// A certificate with its key.
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    /// Locked only for a glance.
    loaded: Mutex<(Stamp, Arc<ServerConfig>)>,
}

impl Certificate {
    /// Reads a certificate chain and its private key, both PEM.
    ///
    /// # Errors
    /// They cannot be read or do not match.
    pub fn open(certificate: &Path, key: &Path) -> io::Result<Self> {
        let loaded = Mutex::new((stamp(certificate, key), load(certificate, key)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), loaded })
    }

    /// The acceptor for the next connection. Reloads changed files; keeps the last good ones if they are unusable.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let now = stamp(&self.certificate, &self.key);
        let mut loaded = self.loaded.lock();
        if loaded.0 != now {
            match load(&self.certificate, &self.key) {
                Ok(config) => {
                    tracing::info!("reloaded the certificate");
                    *loaded = (now, config);
                }
                // Perhaps only one of the two was replaced so far.
                Err(error) => tracing::warn!(%error, "cannot use the changed certificate"),
            }
        }
        TlsAcceptor::from(Arc::clone(&loaded.1))
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn load(certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
