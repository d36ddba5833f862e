//! Client and server over real sockets.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::sys::process;

struct Example;

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

    async fn unmount(&self, lazy: bool) -> Result<(), Error> {
        if lazy { Ok(()) } else { Err(Error::new(ErrorKind::Busy, "in use")) }
    }
}

fn record() -> Record {
    let pid = std::process::id();
    Record { pid, start_time: process::start_time(pid).unwrap(), source: "reg.io/team".into(), mount_point: "/mnt".into(), log: None }
}

fn client(directory: &Path) -> Client {
    Client::new(&["/no/such/directory".into(), directory.to_owned()], (0, 52))
}

async fn ask(directory: &Path, request: Request) -> Result<serde_json::Value, Error> {
    let client = client(directory);
    tokio::task::spawn_blocking(move || client.ask(&request, PATIENCE)).await.unwrap()
}

#[tokio::test]
async fn every_request_gets_the_handler_s_answer() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("run/ocifs");
    let server = Server::bind(&directory, (0, 52), &record()).unwrap();
    let serving = tokio::spawn(async move { server.serve(Arc::new(Example)).await });

    let status = ask(&directory, Request::Status).await.unwrap();
    assert_eq!((status["source"].as_str(), status["pid"].as_u64()), (Some("reg.io/team"), Some(7)));
    assert!(ask(&directory, Request::Refresh { path: None }).await.is_ok());
    let missing = ask(&directory, Request::Refresh { path: Some("typo".into()) }).await.unwrap_err();
    assert_eq!((missing.kind, missing.message.as_str()), (ErrorKind::NotFound, "no such repository"));
    assert_eq!(ask(&directory, Request::Unmount { lazy: false }).await.unwrap_err().kind, ErrorKind::Busy);
    assert!(ask(&directory, Request::Version).await.unwrap()["version"].is_string());
    assert_eq!(client(&directory).daemon(), Some(std::process::id()));
    assert_eq!(client(&directory).record(), Some(record()));

    serving.abort();
    let _ = serving.await;
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "socket and record are removed");
}

#[test]
fn a_daemon_that_never_answers_costs_no_more_than_the_patience() {
    let root = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(Place::new(root.path(), (0, 52)).socket).unwrap();
    let error = client(root.path()).ask(&Request::Status, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(client(root.path()).daemon(), Some(std::process::id()), "its process is known all the same");
}

#[tokio::test]
async fn a_stale_socket_is_unreachable_and_the_next_daemon_replaces_it() {
    let root = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(Place::new(root.path(), (0, 52)).socket).unwrap());
    assert_eq!(ask(root.path(), Request::Status).await.unwrap_err().kind, ErrorKind::Unreachable);
    Server::bind(root.path(), (0, 52), &record()).unwrap();
}

#[tokio::test]
async fn a_daemon_that_ends_late_leaves_the_socket_of_its_successor() {
    let root = tempfile::tempdir().unwrap();
    let first = Server::bind(root.path(), (0, 52), &record()).unwrap();
    let second = Server::bind(root.path(), (0, 52), &record()).unwrap();
    drop(first);
    assert!(Place::new(root.path(), (0, 52)).socket.exists());
    drop(second);
    assert!(!Place::new(root.path(), (0, 52)).socket.exists());
}

#[test]
fn a_record_of_a_process_that_is_gone_names_nobody() {
    let root = tempfile::tempdir().unwrap();
    let gone = Record { start_time: 1, ..record() };
    std::fs::write(Place::new(root.path(), (0, 52)).record, serde_json::to_vec(&gone).unwrap()).unwrap();
    assert_eq!(client(root.path()).daemon(), None);
    client(root.path()).remove_leftovers();
    assert_eq!(client(root.path()).record(), None);
}
