//! Connects to a Unix socket whose listener may hang.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Interval of retries while the listener's queue is full.
const PAUSE: Duration = Duration::from_millis(50);

/// Connects to a socket. The result is a blocking stream.
///
/// # Errors
/// `TimedOut` while the queue stays full, as with a hung listener; `ConnectionRefused` without a listener.
pub fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let begun = Instant::now();
    loop {
        // A blocking connect would wait for the queue forever.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::AGAIN) if begun.elapsed() < patience => std::thread::sleep(PAUSE),
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn connecting_to_a_silent_listener_ends_at_the_time_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _waits = connect(&path, Duration::ZERO).unwrap();
        assert_eq!(connect(&path, Duration::from_millis(1)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(listener);
        assert_eq!(connect(&path, Duration::ZERO).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
