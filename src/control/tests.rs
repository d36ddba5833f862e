//! Client and server over real sockets.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::error::ErrorKind;
use crate::publish::Outcome;
use crate::seal::Passphrase;
use crate::sys::mountinfo::Mount;
use crate::sys::process;

#[derive(Default)]
struct Example {
    left: Option<Arc<Notify>>,
}

#[async_trait]
impl Handler for Example {
    async fn status(&self) -> Result<Status, Error> {
        Ok(Status { source: "reg.io/team".into(), pid: 7, ..Status::default() })
    }

    async fn refresh(&self, path: Option<&str>) -> Result<(), Error> {
        match path {
            Some("typo") => Err(Error::new(ErrorKind::NotFound, "no such repository")),
            _ => Ok(()),
        }
    }

    async fn let_go(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn unmount(&self, lazy: bool) -> Result<(), Error> {
        if lazy { Ok(()) } else { Err(Error::new(ErrorKind::Busy, "in use")) }
    }

    async fn staged(&self, _: &Selection) -> Result<Vec<StagedTag>, Error> {
        Ok((0..1000).map(|number| StagedTag { reference: format!("reg.io/team/app:v{number}"), ..StagedTag::default() }).collect())
    }

    async fn sync(
        &self,
        selection: &Selection,
        options: &Options,
        passphrases: Vec<Passphrase>,
        listener: &Listener,
    ) -> Result<Vec<Report>, Error> {
        let Selection::Reference(reference) = selection else {
            // Once dropped, this future is no longer awaited.
            let _left = DropSignal(self.left.clone());
            listener(Event::Begin { reference: "endless".into(), dry_run: false });
            return std::future::pending().await;
        };
        let reference = reference.clone();
        listener(Event::Begin { reference: reference.clone(), dry_run: false });
        assert_eq!(passphrases, [Passphrase::new(b"tell nobody".to_vec())]);
        listener(Event::Note { reference: reference.clone(), text: format!("dry run: {}", options.dry_run) });
        let (sent, reused, changes) = Default::default();
        Ok(vec![Report { reference, outcome: Outcome::Unchanged, sent, reused, changes, ignored: 0, notes: Vec::new() }])
    }

    async fn differences(&self, _: &Selection) -> Result<Vec<Difference>, Error> {
        Err(Error::new(ErrorKind::KeyMissing, "no passphrase"))
    }

    async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error> {
        Ok(vec![format!("{selection:?}")])
    }

    async fn new_tag(&self, reference: &str) -> Result<String, Error> {
        Ok(format!("path of {reference}"))
    }

    async fn publish_at_end(&self, _: bool) -> Result<(), Error> {
        Ok(())
    }
}

/// Signals when it is dropped.
struct DropSignal(Option<Arc<Notify>>);

impl Drop for DropSignal {
    fn drop(&mut self) {
        if let Some(left) = &self.0 {
            left.notify_one();
        }
    }
}

fn record() -> Record {
    let pid = std::process::id();
    Record {
        pid,
        start_time: process::start_time(pid).unwrap(),
        device: Some((0, 52)),
        source: "reg.io/team".into(),
        mount_point: "/mnt".into(),
        state_directory: None,
        log: None,
    }
}

/// The mount of that record, as in the mount table.
fn mount(user: u32) -> Mount {
    Mount {
        id: 1,
        device: (0, 52),
        root: "/".into(),
        mount_point: "/mnt".into(),
        kind: crate::sys::mount::KIND.into(),
        source: "reg.io/team".into(),
        options: format!("rw,user_id={user},group_id=0"),
    }
}

fn client(directory: &Path) -> Client {
    Client::new(&["/no/such/directory".into(), directory.to_owned()], &mount(process::effective_uid()))
}

/// An endpoint with this record and no listener.
fn endpoint(directory: &Path, record: &Record) -> Endpoint {
    let endpoint = Endpoint::new(std::fs::File::open(directory).unwrap(), directory);
    endpoint.write(record).unwrap();
    endpoint
}

/// The only socket in a directory.
fn socket(directory: &Path) -> std::path::PathBuf {
    records(directory).pop().unwrap().endpoint.socket()
}

async fn ask(directory: &Path, request: Request) -> Result<serde_json::Value, Error> {
    let client = client(directory);
    tokio::task::spawn_blocking(move || client.ask(&request, PATIENCE)).await.unwrap()
}

#[tokio::test]
async fn every_request_gets_the_handler_s_answer() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("run/ocifs");
    let server = Server::bind(&directory, record()).unwrap();
    let serving = tokio::spawn(async move { server.serve(Arc::new(Example::default())).await });

    let status = ask(&directory, Request::Status).await.unwrap();
    assert_eq!((status["source"].as_str(), status["pid"].as_u64()), (Some("reg.io/team"), Some(7)));
    assert!(ask(&directory, Request::Refresh { path: None }).await.is_ok());
    let missing = ask(&directory, Request::Refresh { path: Some("typo".into()) }).await.unwrap_err();
    assert_eq!((missing.kind, missing.message.as_ref()), (ErrorKind::NotFound, "no such repository"));
    assert_eq!(ask(&directory, Request::Unmount { lazy: false }).await.unwrap_err().kind, ErrorKind::Busy);
    assert!(ask(&directory, Request::Version).await.unwrap()["version"].is_string());
    assert_eq!(client(&directory).daemon().map(|daemon| daemon.pid()), Some(std::process::id()));
    assert_eq!(client(&directory).record(), Some(&record()));

    serving.abort();
    let _ = serving.await;
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "socket and record are removed");
}

#[test]
fn waiting_for_a_silent_daemon_ends_at_the_time_limit() {
    let root = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(endpoint(root.path(), &record()).socket()).unwrap();
    let error = client(root.path()).ask(&Request::Status, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    let daemon = client(root.path()).daemon();
    assert_eq!(daemon.map(|daemon| daemon.pid()), Some(std::process::id()), "its process is known all the same");
}

#[tokio::test]
async fn leftovers_of_a_dead_daemon_are_unreachable_and_the_next_daemon_removes_them() {
    let root = tempfile::tempdir().unwrap();
    let stale = endpoint(root.path(), &Record { start_time: 1, ..record() });
    drop(UnixListener::bind(stale.socket()).unwrap());
    assert_eq!(ask(root.path(), Request::Status).await.unwrap_err().kind, ErrorKind::Unreachable);
    let _server = Server::bind(root.path(), record()).unwrap();
    assert!(!stale.socket().exists() && !stale.record().exists());
}

#[tokio::test]
async fn a_daemon_that_exits_late_leaves_its_successor_s_files() {
    let root = tempfile::tempdir().unwrap();
    let first = Server::bind(root.path(), record()).unwrap();
    let second = Server::bind(root.path(), record()).unwrap();
    drop(first);
    assert!(socket(root.path()).exists());
    drop(second);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_reused_device_number_means_the_later_mount() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| Record { mount_point: path.into(), ..record() };
    let first = Server::bind(root.path(), at("/first")).unwrap();
    // File times are coarse.
    std::fs::File::open(records(root.path())[0].endpoint.record()).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let second = Server::bind(root.path(), at("/second")).unwrap();
    assert_eq!(client(root.path()).record(), Some(&at("/second")));
    drop(second);
    assert_eq!(client(root.path()).record(), Some(&at("/first")));
    first.mount_is_gone();
    assert_eq!(client(root.path()).record(), None);
    let later = Server::bind(root.path(), at("/later")).unwrap();
    first.mount_is_gone();
    assert_eq!(client(root.path()).record(), Some(&at("/later")));
    drop((first, later));
}

#[test]
fn a_mount_with_another_source_is_a_different_mount() {
    let root = tempfile::tempdir().unwrap();
    endpoint(root.path(), &Record { source: "reg.io".into(), ..record() });
    endpoint(root.path(), &Record { device: Some((0, 53)), ..record() });
    assert_eq!(client(root.path()).record(), None);
}

#[test]
fn a_record_of_a_dead_process_names_no_daemon() {
    let root = tempfile::tempdir().unwrap();
    endpoint(root.path(), &Record { start_time: 1, ..record() });
    assert!(client(root.path()).daemon().is_none());
    client(root.path()).remove_leftovers();
    assert_eq!(client(root.path()).record(), None);
}

#[test]
fn records_and_sockets_of_other_users_are_ignored() {
    let root = tempfile::tempdir().unwrap();
    let own = process::effective_uid();
    let listener = UnixListener::bind(endpoint(root.path(), &record()).socket()).unwrap();
    assert!(client(root.path()).daemon().is_some());
    // Another user's mount, for which this user wrote a record.
    let other = Client::new(&[root.path().to_owned()], &mount(own + 1));
    assert_eq!(other.record(), None, "not even root's");
    if own == 0 {
        std::os::unix::fs::chown(records(root.path())[0].endpoint.record(), Some(1), None).unwrap();
        let other = Client::new(&[root.path().to_owned()], &mount(2));
        assert_eq!(other.record(), None);
        assert!(other.daemon().is_none());
        assert_eq!(other.ask(&Request::Version, PATIENCE).unwrap_err().kind, ErrorKind::Unreachable);
        assert_eq!(client(root.path()).record(), None, "root believes no one else either");
    }
    drop(listener);
}

/// Collects the elements of an answer and the events before it.
async fn collect<T: serde::de::DeserializeOwned + Send + 'static>(
    directory: &Path,
    request: Request,
) -> (Result<Vec<T>, Error>, Vec<Event>) {
    let client = client(directory);
    let work = move || {
        let mut heard = Vec::new();
        (client.collect(&request, &mut |event| heard.push(event)), heard)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_sync_reports_progress_before_it_answers() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::bind(root.path(), record()).unwrap();
    let serving = tokio::spawn(async move { server.serve(Arc::new(Example::default())).await });
    let reference = "reg.io/team/app:v1".to_owned();
    let options = Options { dry_run: true, ..Options::default() };
    let request = Request::Sync {
        selection: Selection::Reference(reference.clone()),
        options,
        passphrases: vec![Passphrase::new(b"tell nobody".to_vec())],
    };
    let (answer, heard) = collect::<Report>(root.path(), request).await;
    assert_eq!(answer.unwrap()[0].reference, reference);
    let note = Event::Note { reference: reference.clone(), text: "dry run: true".into() };
    assert_eq!(heard, [Event::Begin { reference, dry_run: false }, note]);
    serving.abort();
}

#[tokio::test]
async fn long_lists_and_errors_of_every_kind_arrive_whole() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::bind(root.path(), record()).unwrap();
    let serving = tokio::spawn(async move { server.serve(Arc::new(Example::default())).await });
    let staged = collect::<StagedTag>(root.path(), Request::Staged { selection: Selection::All }).await.0.unwrap();
    assert_eq!((staged.len(), staged[999].reference.as_str()), (1000, "reg.io/team/app:v999"));
    let error = collect::<Difference>(root.path(), Request::Differences { selection: Selection::All }).await.0.unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyMissing);
    let discarded = collect::<String>(root.path(), Request::Discard { selection: Selection::Path("a/b".into()) }).await.0.unwrap();
    assert_eq!(discarded, ["Path(\"a/b\")"]);
    let path = ask(root.path(), Request::New { reference: "reg.io/a/b:v1".into() }).await.unwrap();
    assert_eq!(path, "path of reg.io/a/b:v1");
    assert!(ask(root.path(), Request::PublishAtEnd { push: false }).await.is_ok());
    serving.abort();
}

#[tokio::test]
async fn a_client_that_disconnects_stops_its_request() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::bind(root.path(), record()).unwrap();
    let left = Arc::new(Notify::new());
    let example = Example { left: Some(Arc::clone(&left)) };
    let serving = tokio::spawn(async move { server.serve(Arc::new(example)).await });
    let mut stream = tokio::net::UnixStream::connect(socket(root.path())).await.unwrap();
    let mut request =
        serde_json::to_vec(&Request::Sync { selection: Selection::All, options: Options::default(), passphrases: Vec::new() }).unwrap();
    request.push(b'\n');
    stream.write_all(&request).await.unwrap();
    let mut first = [0; 8];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"{\"event\"");
    drop(stream);
    left.notified().await;
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn long_work_sends_signs_of_life() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::bind(root.path(), record()).unwrap();
    let serving = tokio::spawn(async move { server.serve(Arc::new(Example::default())).await });
    let stream = tokio::net::UnixStream::connect(socket(root.path())).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut request =
        serde_json::to_vec(&Request::Sync { selection: Selection::All, options: Options::default(), passphrases: Vec::new() }).unwrap();
    request.push(b'\n');
    writer.write_all(&request).await.unwrap();
    let mut lines = tokio::io::BufReader::new(reader).lines();
    let mut alive = 0;
    while alive < 3 {
        alive += usize::from(lines.next_line().await.unwrap().unwrap() == "\"alive\"");
    }
    serving.abort();
}
