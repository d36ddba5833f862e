//! TLS: which CAs apply, and to which hosts.

use std::net::SocketAddr;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::{Asking, Authority, keep};
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
            // Some tests have clients that reject the certificate.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Starts the reference registry with a certificate from a new CA.
async fn start(sample: &Sample, asking: Asking) -> (String, Authority) {
    serve(reference::router(sample, reference::full()), asking).await
}

async fn serve(router: axum::Router, asking: Asking) -> (String, Authority) {
    let authority = Authority::new();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let listener = TlsListener { tcp, acceptor: authority.acceptor(asking) };
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, authority)
}

fn client(address: &str, tls: Tls) -> HttpRegistry {
    HttpRegistry::new(HttpConfig { plain_http: Some(false), tls, ..config(address) }).unwrap()
}

#[tokio::test]
async fn a_private_ca_is_trusted_only_if_configured_by_file_or_directory() {
    let sample = Sample::new();
    let (address, issued) = start(&sample, Asking::No).await;
    let pem = issued.pem;
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
    let (_, other) = start(&sample, Asking::No).await;
    std::fs::write(directory.path().join("other.pem"), other.pem).unwrap();
    let stranger = client(&address, Tls { ca_file: Some(directory.path().join("other.pem")), ..Tls::default() });
    let error = stranger.ping(None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("--ca-file") && !error.message.contains("attempts"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_sent_from_files_or_a_directory() {
    let sample = Sample::new();
    let (address, issued) = start(&sample, Asking::Required).await;
    let directory = tempfile::tempdir().unwrap();
    keep(directory.path(), &address, &issued, &issued.issue());
    let host = directory.path().join(&address);
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
    let (address, issued) = serve(router, Asking::No).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), issued.pem).unwrap();
    let error = client(&address, Tls { ca_file: Some(file.path().to_owned()), ..Tls::default() }).ping(None).await.unwrap_err();
    assert!(error.message.contains("plain HTTP"), "{error}");
    assert!(plain.log().is_empty());
}

#[tokio::test]
async fn a_registry_speaking_plain_http_is_reported_as_such() {
    let server = reference::start(&Sample::new(), reference::full()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap().cert.pem()).unwrap();
    let error = client(&server.authority, Tls { ca_file: Some(file.path().to_owned()), ..Tls::default() }).ping(None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("--plain-http"), "{error}");
}

#[test]
fn unusable_files_are_reported_when_the_client_is_created() {
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
    let (address, _) = serve(router, Asking::No).await;
    let client = client(&address, Tls { insecure: true, ..Tls::default() });
    client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap();
}
