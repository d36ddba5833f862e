//! The service manager: what it is told (sd_notify(3)), and the socket that it hands over (sd_listen_fds(3)).

use std::net::TcpListener;

use sd_notify::NotifyState;

use crate::cli::exit::Failure;
use crate::cli::settings::environment;
use crate::sys::inherited::Inherited;

/// The first descriptor that is handed over.
const FIRST: i32 = 3;

/// Tells it what this process does now, if there is one.
pub fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "no service manager was told");
    }
}

/// The socket that it made for this process.
///
/// # Errors
/// There are several of them, or it is none of TCP.
pub fn listener(inherited: &mut Inherited) -> Result<Option<TcpListener>, Failure> {
    let number = |name: &str| environment::variable(name)?.to_str()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(process), Some(count)) if process == std::process::id() && count > 0 => match count {
            1 => {
                let unusable = |why: &str| Failure::usage(format!("the socket of the service manager cannot be used: {why}"));
                let socket = TcpListener::from(inherited.take(FIRST).ok_or_else(|| unusable("descriptor 3 is not open"))?);
                socket.local_addr().map_err(|error| unusable(&error.to_string()))?;
                Ok(Some(socket))
            }
            _ => Err(Failure::usage(format!("the service manager hands over {count} sockets; one is served"))),
        },
        _ => Ok(None),
    }
}
