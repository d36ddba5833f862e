//! Uploads to a registry that restarts or stays unreachable.

use std::time::Duration;

use super::*;

/// A port on which nothing listens until `back` is called. It stays bound, so that no other test's server gets it.
fn closed_port() -> (String, impl FnOnce(&Writable) -> Server) {
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let authority = held.local_addr().unwrap().to_string();
    let back = move |registry: &Writable| {
        let registry = registry.clone();
        Server::start_on(held.listen(64).unwrap(), move |request, _| registry.answer(request))
    };
    (authority, back)
}

#[tokio::test]
async fn concurrent_uploads_wait_for_a_restarting_registry() {
    let registry = Writable::new(FULL);
    let (authority, back) = closed_port();
    let mut config = config(&authority);
    small_requests(&mut config);
    // No failure is tolerated, except for a registry that is not there yet.
    config.timing.retries = 0;
    let client = HttpRegistry::new(config).unwrap();
    let blobs: Vec<Vec<u8>> = (0..4u8).map(|number| [data(), vec![number]].concat()).collect();
    let repository = repository();
    let descriptors: Vec<_> = blobs.iter().map(|blob| descriptor(blob)).collect();
    let uploads =
        blobs.iter().zip(&descriptors).map(|(blob, descriptor)| client.push_blob(&repository, descriptor, source(blob), silent()));
    let returning = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        back(&registry)
    };
    let (uploads, _server) = tokio::join!(futures_util::future::join_all(uploads), returning);
    for (upload, blob) in uploads.into_iter().zip(&blobs) {
        upload.unwrap();
        assert!(registry.blob(blob));
    }
}

#[tokio::test]
async fn uploads_to_an_absent_registry_fail_together_and_later_ones_fail_fast() {
    let (authority, _held) = closed_port();
    let mut config = config(&authority);
    config.timing.progress = Duration::from_secs(1);
    config.timing.backoff = Duration::from_millis(20);
    let client = HttpRegistry::new(config).unwrap();
    let (blob, repository) = (descriptor(b"small"), repository());
    let uploads = (0..8).map(|_| client.push_blob(&repository, &blob, source(b"small"), silent()));
    for upload in futures_util::future::join_all(uploads).await {
        let error = upload.unwrap_err();
        // On a busy machine the time may run out during an attempt instead of between two.
        assert!(matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut), "{error}");
        assert!(error.message.contains("--io-timeout"), "{error}");
    }
    let error = client.push_blob(&repository, &blob, source(b"small"), silent()).await.unwrap_err();
    assert!(!error.message.contains("--io-timeout"), "one attempt only: {error}");
}

#[tokio::test]
async fn uploads_in_progress_survive_a_registry_restart() {
    let registry = Writable::new(FULL);
    let before = registry.serve(|_, _| None).await;
    let authority = before.authority.clone();
    let client = writer(&authority);
    let blobs: Vec<Vec<u8>> = (0..4u8).map(|number| [data(), vec![number]].concat()).collect();
    let repository = repository();
    let descriptors: Vec<_> = blobs.iter().map(|blob| descriptor(blob)).collect();
    let uploads =
        blobs.iter().zip(&descriptors).map(|(blob, descriptor)| client.push_blob(&repository, descriptor, source(blob), silent()));
    let restarting = async {
        while before.log().iter().filter(|request| is(request, "PATCH")).count() < blobs.len() {
            tokio::task::yield_now().await;
        }
        // Connections break and nothing listens.
        drop(before);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let registry = registry.clone();
        Server::start_at(&authority, move |request, _| registry.answer(request)).await
    };
    let (uploads, after) = tokio::join!(futures_util::future::join_all(uploads), restarting);
    for (upload, blob) in uploads.into_iter().zip(&blobs) {
        upload.unwrap();
        assert!(registry.blob(blob));
    }
    assert!(!after.log().is_empty(), "the uploads ended before the registry restarted");
}
