//! Where the bytes and credentials of uploads go.

use std::sync::OnceLock;

use base64::Engine as _;
use parking_lot::Mutex;
use serde_json::json;

use super::super::client_with;
use super::*;
use crate::oci::Repository;

fn stored(authority: &str) -> serde_json::Value {
    json!({"auths": {authority: {"auth": base64::engine::general_purpose::STANDARD.encode("me:hunter2")}}})
}

fn asks_for_password() -> Reply {
    reply(401, &[("WWW-Authenticate", r#"Basic realm="x""#)], b"")
}

#[tokio::test]
async fn an_upload_goes_to_another_origin_without_credentials_and_only_where_a_202_named_it() {
    for by_redirect in [false, true] {
        let registry = Writable::new(FULL);
        let storage = registry.serve(|_, _| None).await;
        let away = storage.url("");
        let home = registry.clone();
        let server = registry
            .serve(move |request, _| {
                if request.header("authorization").is_none() {
                    return Some(asks_for_password());
                }
                if by_redirect {
                    let moved = reply(307, &[("Location", &format!("{away}{}", request.path))], b"");
                    return (request.method != "POST" && request.method != "HEAD").then_some(moved);
                }
                if request.method != "POST" {
                    return None;
                }
                home.answer(request);
                Some(reply(202, &[("Location", &format!("{away}/v2/team/app/blobs/uploads/s1?_state=a%2Bb"))], b""))
            })
            .await;
        let directory = tempfile::tempdir().unwrap();
        let client = client_with(&server.authority, &directory, &stored(&server.authority), small_requests);
        let pushed = push(&client).await;
        let away = storage.log();
        if by_redirect {
            let error = pushed.unwrap_err();
            assert!(error.message.contains("redirected") && away.is_empty(), "{error}");
            continue;
        }
        pushed.unwrap();
        assert!(registry.blob(&data()));
        assert_eq!(away.iter().map(|request| request.bytes.len()).sum::<usize>(), data().len());
        assert!(away.iter().all(|request| !request.headers.contains_key("authorization") && !format!("{request:?}").contains("hunter2")));
    }
}

/// Valid tokens, with their scopes.
type Tokens = Arc<Mutex<Vec<(String, Vec<String>)>>>;

/// A registry with its own token server.
struct Guarded {
    server: Server,
    registry: Writable,
    tokens: Tokens,
}

/// The scopes of a token request.
fn scopes(path: &str) -> Vec<String> {
    let plain = path.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    plain.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope=")).map(str::to_owned).collect()
}

impl Guarded {
    /// The registry demands the scope that `wants` returns for a request.
    async fn start(wants: fn(&Received) -> String) -> Self {
        let registry = Writable::new(Manner { tag_deletes: false, ..FULL });
        let tokens = Tokens::default();
        let realm: Arc<OnceLock<String>> = Arc::default();
        let (known, valid, given) = (Arc::clone(&realm), Arc::clone(&tokens), AtomicUsize::new(0));
        let server = registry
            .serve(move |request, _| {
                if request.path.starts_with("/token") {
                    let token = format!("t{}", given.fetch_add(1, Ordering::SeqCst));
                    valid.lock().push((format!("Bearer {token}"), scopes(&request.path)));
                    return Some(reply(200, &[], json!({"token": token, "expires_in": 300}).to_string().as_bytes()));
                }
                let wanted = wants(request);
                let (name, actions) = wanted.rsplit_once(':').unwrap();
                let valid = valid.lock();
                let sent = valid.iter().find(|(token, _)| request.header("authorization") == Some(token));
                let allowed = sent
                    .into_iter()
                    .flat_map(|(_, scopes)| scopes)
                    .filter_map(|scope| scope.rsplit_once(':'))
                    .any(|(of, has)| of == name && actions.split(',').all(|action| has.split(',').any(|has| has == action)));
                let challenge = format!(r#"Bearer realm="{}",service="reg",scope="{wanted}""#, known.get().unwrap());
                (!allowed).then(|| reply(401, &[("WWW-Authenticate", &challenge)], b""))
            })
            .await;
        realm.set(server.url("/token")).unwrap();
        Self { server, registry, tokens }
    }

    /// The scopes of the token requests, in order.
    fn scopes(&self) -> Vec<String> {
        let tokens = self.server.log().into_iter().filter(|request| request.path.starts_with("/token"));
        tokens.map(|request| scopes(&request.path).join(" ")).collect()
    }
}

fn by_method(request: &Received) -> String {
    match request.method.as_str() {
        "GET" | "HEAD" => "repository:team/app:pull".to_owned(),
        "DELETE" if !request.path.contains("/uploads/") => "repository:team/app:delete".to_owned(),
        _ => "repository:team/app:pull,push".to_owned(),
    }
}

#[tokio::test]
async fn one_token_serves_a_whole_upload_and_another_a_deletion() {
    let guarded = Guarded::start(by_method).await;
    let client = writer(&guarded.server.authority);
    assert!(!client.has_blob(&repository(), &descriptor(&data())).await.unwrap());
    push(&client).await.unwrap();
    assert!(guarded.registry.blob(&data()));
    assert_eq!(guarded.scopes(), ["repository:team/app:pull,push"]);
    client.push_blob(&repository(), &descriptor(b"{}"), source(b"{}"), silent()).await.unwrap();
    let one = writing::manifest(&[b"{}"], "one", None);
    client.push_manifest(&repository(), &super::super::tag("v1"), &one).await.unwrap();
    client.delete_tag(&repository(), &writing::name("v1"), &one.digest).await.unwrap();
    let scopes = guarded.scopes();
    assert_eq!(scopes[1..], ["repository:team/app:pull", "repository:team/app:pull,push,delete"]);
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories() {
    let guarded = Guarded::start(by_method).await;
    let other = Repository::parse("team/other").unwrap();
    let blob = descriptor(b"mounted");
    guarded.registry.held.lock().blobs.insert(("team/other".to_owned(), blob.digest.to_string()), b"mounted".to_vec());
    assert!(writer(&guarded.server.authority).mount_blob(&repository(), &blob, &other).await.unwrap());
    assert_eq!(guarded.scopes(), ["repository:team/app:pull,push repository:team/other:pull"]);
}

#[tokio::test]
async fn a_token_that_expires_during_an_upload_is_replaced() {
    let guarded = Guarded::start(by_method).await;
    let client = writer(&guarded.server.authority);
    client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap();
    // When the second chunk begins, the client's token is revoked.
    let (tokens, revoked) = (Arc::clone(&guarded.tokens), AtomicUsize::new(0));
    let uploaded: Uploaded = Arc::new(move |offset| {
        if offset == 1000 && revoked.fetch_add(1, Ordering::SeqCst) == 0 {
            tokens.lock().clear();
        }
    });
    client.push_blob(&repository(), &descriptor(&data()), source(&data()), uploaded).await.unwrap();
    assert!(guarded.registry.blob(&data()));
    assert_eq!(guarded.scopes(), ["repository:team/app:pull,push"; 2]);
}

#[tokio::test]
async fn the_session_of_a_refused_mount_is_reused_or_cancelled() {
    let registry = Writable::new(Manner { mounts: false, ..FULL });
    let server = registry.serve(|_, _| None).await;
    let client = writer(&server.authority);
    let blob = descriptor(&data());
    for from in ["team/other", "team/third"] {
        assert!(!client.mount_blob(&repository(), &blob, &Repository::parse(from).unwrap()).await.unwrap());
    }
    push(&client).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(trail(&server), ["POST", "POST", "DELETE", "0-999", "1000-1999", "2000-2999", "3000-3499", "PUT"]);
    // An expired session costs a new one.
    client.mount_blob(&repository(), &descriptor(b"small"), &Repository::parse("team/other").unwrap()).await.unwrap();
    registry.held.lock().sessions.clear();
    client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap();
    assert!(registry.blob(b"small"));
}
