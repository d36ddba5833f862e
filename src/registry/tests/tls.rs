//! TLS: which authorities count, and for whom.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::suite::{Sample, conforms};
use super::writing::{descriptor, silent, source};
use super::{config, reference, repository};
use crate::error::ErrorKind;
use crate::registry::{ClientCertificate, HttpConfig, HttpRegistry, Pull, Push, Tls, Trust};

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            // Clients that refuse the certificate are part of the tests.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// What a new authority has issued, as PEM.
struct Issued {
    authority: String,
    certificate: String,
    key: String,
}

/// Starts the reference registry with a certificate of a new authority. With `asking`, it wants one from its clients.
async fn start(sample: &Sample, asking: bool) -> (String, Issued) {
    serve(reference::router(sample, reference::full()), asking).await
}

async fn serve(router: axum::Router, asking: bool) -> (String, Issued) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = if asking {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
        builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let server = builder.with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let listener = TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(server)) };
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, Issued { authority: authority.pem(), certificate: leaf.pem(), key: key.serialize_pem() })
}

fn client(address: &str, tls: Tls) -> HttpRegistry {
    HttpRegistry::new(HttpConfig { plain_http: Some(false), tls, ..config(address) }).unwrap()
}

#[tokio::test]
async fn an_own_authority_is_trusted_from_a_file_or_a_directory_and_nothing_else_is() {
    let sample = Sample::new();
    let (address, issued) = start(&sample, false).await;
    let pem = issued.authority;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, &pem).unwrap();
    let by_file = client(&address, Tls { ca_file: Some(file), ..Tls::default() });
    assert_eq!((by_file.trust(), by_file.origin()), (Trust::Transport, format!("https://{address}").as_str()));
    conforms(&by_file, &sample, None).await;
    std::fs::create_dir(directory.path().join(&address)).unwrap();
    std::fs::write(directory.path().join(&address).join("ca.crt"), &pem).unwrap();
    client(&address, Tls { directories: vec![directory.path().to_owned()], ..Tls::default() }).ping(None).await.unwrap();
    client(&address, Tls { insecure: true, ..Tls::default() }).ping(None).await.unwrap();
    let (_, other) = start(&sample, false).await;
    std::fs::write(directory.path().join("other.pem"), other.authority).unwrap();
    let stranger = client(&address, Tls { ca_file: Some(directory.path().join("other.pem")), ..Tls::default() });
    let error = stranger.ping(None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("--ca-file") && !error.message.contains("attempts"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_from_files_or_a_directory() {
    let sample = Sample::new();
    let (address, issued) = start(&sample, true).await;
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join(&address);
    std::fs::create_dir(&host).unwrap();
    for (name, content) in [("ca.crt", &issued.authority), ("me.cert", &issued.certificate), ("me.key", &issued.key)] {
        std::fs::write(host.join(name), content).unwrap();
    }
    let ca_file = Some(host.join("ca.crt"));
    let own = ClientCertificate { certificate: host.join("me.cert"), key: host.join("me.key") };
    client(&address, Tls { ca_file: ca_file.clone(), client: Some(own), ..Tls::default() }).ping(None).await.unwrap();
    client(&address, Tls { directories: vec![directory.path().to_owned()], ..Tls::default() }).ping(None).await.unwrap();
    let error = client(&address, Tls { ca_file, ..Tls::default() }).ping(None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_redirect_from_tls_to_plain_text_is_not_followed() {
    let plain = super::scripted::Server::start(|_, _| super::scripted::reply(200, &[], b"")).await;
    let target = plain.url("/v2/");
    let router = axum::Router::new().fallback(move || async move { (axum::http::StatusCode::TEMPORARY_REDIRECT, [("Location", target)]) });
    let (address, issued) = serve(router, false).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), issued.authority).unwrap();
    let error = client(&address, Tls { ca_file: Some(file.path().to_owned()), ..Tls::default() }).ping(None).await.unwrap_err();
    assert!(error.message.contains("plain text"), "{error}");
    assert!(plain.log().is_empty());
}

#[tokio::test]
async fn a_registry_that_speaks_plain_http_is_said_to_do_so() {
    let server = reference::start(&Sample::new(), reference::full()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap().cert.pem()).unwrap();
    let error = client(&server.authority, Tls { ca_file: Some(file.path().to_owned()), ..Tls::default() }).ping(None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("--plain-http"), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_told_when_the_client_is_made() {
    let error = HttpRegistry::new(HttpConfig {
        plain_http: Some(false),
        tls: Tls { ca_file: Some("/nonexistent/ca.pem".into()), ..Tls::default() },
        ..config("reg.io")
    })
    .err()
    .unwrap();
    assert!(error.message.contains("/nonexistent/ca.pem"), "{error}");
}

#[test]
fn transport_is_trusted_by_tls_and_loopback_only() {
    let trust = |authority: &str, plain| HttpRegistry::new(HttpConfig { plain_http: plain, ..config(authority) }).unwrap().trust();
    assert_eq!(trust("localhost:5000", None), Trust::Transport);
    assert_eq!(trust("reg.io", Some(true)), Trust::Digest);
}

#[tokio::test]
async fn an_upload_at_the_same_host_with_the_wrong_scheme_stays_encrypted() {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::{Method, Response};
    let router = axum::Router::new().fallback(|request: Request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let answer = match *request.method() {
            Method::POST => Response::builder().status(202).header("Location", format!("http://{host}/up/1?_state=x")),
            Method::PUT if request.uri().path() == "/up/1" => Response::builder().status(201),
            _ => Response::builder().status(404),
        };
        answer.body(Body::empty()).unwrap()
    });
    let (address, _) = serve(router, false).await;
    let client = client(&address, Tls { insecure: true, ..Tls::default() });
    client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap();
}
