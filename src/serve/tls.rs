//! TLS with a certificate that is read again when its files change.

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

/// When the two files were last written.
type Stamp = [Option<SystemTime>; 2];

/// A certificate with its key.
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    /// Held for one look.
    loaded: Mutex<(Stamp, Arc<ServerConfig>)>,
}

impl Certificate {
    /// Reads a chain of certificates and its key, both PEM.
    ///
    /// # Errors
    /// They cannot be read or do not belong together.
    pub fn open(certificate: &Path, key: &Path) -> io::Result<Self> {
        let loaded = Mutex::new((stamp(certificate, key), load(certificate, key)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), loaded })
    }

    /// For the next connection. Files that changed are read; if they cannot be used, the last good ones stay.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let now = stamp(&self.certificate, &self.key);
        let mut loaded = self.loaded.lock();
        if loaded.0 != now {
            match load(&self.certificate, &self.key) {
                Ok(config) => {
                    tracing::info!("the changed certificate is used");
                    *loaded = (now, config);
                }
                // Perhaps only one of the two was replaced so far.
                Err(error) => tracing::warn!(%error, "the changed certificate is not used"),
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
