//! A test certificate authority, and the certificates it issues to servers and clients.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Whether a server demands client certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    No,
    /// Clients without a certificate are accepted too.
    Optional,
    Required,
}

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: CertificateDer<'static>,
    /// The certificate of the authority.
    pub(super) pem: String,
}

/// A certificate and its key.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) der: Vec<u8>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = parameters.self_signed(&key).unwrap();
        Self { own: own.der().clone(), pem: own.pem(), issuer: Issuer::new(parameters, key) }
    }

    pub(super) fn issue(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: leaf.pem(), key: key.serialize_pem(), der: leaf.der().to_vec() }
    }

    pub(super) fn acceptor(&self, asking: Asking) -> TlsAcceptor {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.own.clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match asking {
            Asking::No => builder.with_no_client_auth(),
            Asking::Optional => builder.with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap()),
            Asking::Required => builder.with_client_cert_verifier(clients.build().unwrap()),
        };
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let server = builder.with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        TlsAcceptor::from(Arc::new(server.unwrap()))
    }
}

/// Writes a host's files into a docker-style certificate directory.
pub(super) fn keep(directory: &Path, host: &str, authority: &Authority, client: &Issued) {
    let host = directory.join(host);
    std::fs::create_dir(&host).unwrap();
    for (name, content) in [("ca.crt", &authority.pem), ("me.cert", &client.certificate), ("me.key", &client.key)] {
        std::fs::write(host.join(name), content).unwrap();
    }
}
