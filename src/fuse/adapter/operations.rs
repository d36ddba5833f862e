//! Runs the operations of the file system: each is polled once on the FUSE thread, and one that waits continues on the runtime with
//! its reply. Knows no request.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};

use fuser::{Errno, INodeNo, Request};
use tokio::runtime::{EnterGuard, Handle};

use super::replies::Refuse;
use crate::error::{Error, ErrorKind};
use crate::fuse::errno::{errno, level};
use crate::fuse::watchdog::{Ending, Watchdog};

/// Where operations run, and what ends those that are stuck.
pub(super) struct Operations {
    runtime: Handle,
    watchdog: Arc<Watchdog>,
}

impl Operations {
    pub(super) fn new(runtime: Handle, watchdog: Watchdog) -> Self {
        Self { runtime, watchdog: Arc::new(watchdog) }
    }

    /// Enters the runtime on this thread.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs an operation without local effect to completion: at once if possible, else on the runtime, watched by the watchdog.
    pub(super) fn run<R, T, W, A>(&self, request: &Request, name: &'static str, inode: INodeNo, reply: R, work: W, answer: A)
    where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let Some((reply, answer, mut work)) = self.begin(name, inode, reply, work, answer) else { return };
        let mut watched = self.watchdog.watch(request.pid());
        self.runtime.spawn(async move {
            let result = tokio::select! {
                biased;
                result = &mut work => result,
                ending = watched.ending() => Err(ended(ending)),
            };
            respond(name, inode, reply, result, answer);
        });
    }

    /// Runs an operation that changes something. It is never left half done: what it waits for has deadlines of its own.
    pub(super) fn change<R, T, W, A>(&self, name: &'static str, inode: INodeNo, reply: R, work: W, answer: A)
    where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let Some((reply, answer, work)) = self.begin(name, inode, reply, work, answer) else { return };
        self.runtime.spawn(async move { respond(name, inode, reply, work.await, answer) });
    }

    /// Polls an operation once, on this thread. Returns it if unfinished.
    fn begin<R, T, W, A>(&self, name: &'static str, inode: INodeNo, reply: R, work: W, answer: A) -> Option<(R, A, Pin<Box<W>>)>
    where
        R: Refuse,
        W: Future<Output = Result<T, Error>>,
        A: FnOnce(R, T),
    {
        let mut work = Box::pin(work);
        match self.poll(work.as_mut()) {
            Ok(Poll::Ready(result)) => respond(name, inode, reply, result, answer),
            Ok(Poll::Pending) => return Some((reply, answer, work)),
            Err(()) => panicked(name, inode, reply),
        }
        None
    }

    /// A panic must cost one operation, not the thread that serves all others.
    pub(super) fn poll<W: Future>(&self, work: Pin<&mut W>) -> Result<Poll<W::Output>, ()> {
        let _runtime = self.runtime.enter();
        let mut context = task::Context::from_waker(Waker::noop());
        catch_unwind(AssertUnwindSafe(|| work.poll(&mut context))).map_err(|_| ())
    }
}

pub(super) fn panicked(name: &'static str, inode: INodeNo, reply: impl Refuse) {
    tracing::error!(operation = name, inode = inode.0, "the operation panicked");
    reply.refuse(Errno::EIO);
}

fn ended(ending: Ending) -> Error {
    match ending {
        Ending::Interrupted => Error::new(ErrorKind::Interrupted, "the caller was interrupted"),
        Ending::Stuck => Error::new(ErrorKind::TimedOut, "nothing was received for the whole I/O timeout"),
    }
}

pub(super) fn respond<R: Refuse, T>(name: &'static str, inode: INodeNo, reply: R, result: Result<T, Error>, answer: impl FnOnce(R, T)) {
    match result {
        Ok(value) => answer(reply, value),
        Err(error) => {
            log(name, inode, &error);
            reply.refuse(errno(error.kind));
        }
    }
}

pub(super) fn log(operation: &'static str, inode: INodeNo, error: &Error) {
    let inode = inode.0;
    match level(error.kind) {
        tracing::Level::ERROR => tracing::error!(operation, inode, "{error}"),
        tracing::Level::WARN => tracing::warn!(operation, inode, "{error}"),
        _ => tracing::debug!(operation, inode, "{error}"),
    }
}
