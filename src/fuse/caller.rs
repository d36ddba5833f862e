//! Groups and capabilities of callers, which the kernel does not send: read from `/proc`.

use std::path::PathBuf;

use fuser::Request;

use crate::fs::{Asker, Credentials};

/// The sender of a request.
pub(super) fn asker(request: &Request) -> Asker {
    Asker { uid: request.uid(), gid: request.gid(), pid: request.pid(), look }
}

/// Whether this process may administer the system, which passthrough requires.
pub(super) fn is_privileged() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    look(std::process::id()).is_some_and(|ours| ours.capabilities & CAP_SYS_ADMIN != 0)
}

/// The rights of a thread; `None` if it is gone or in another PID namespace.
fn look(thread: u32) -> Option<Credentials> {
    if thread == 0 {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let credentials = parse(&status)?;
    let namespace = |of: &str| -> Option<PathBuf> { std::fs::read_link(format!("/proc/{of}/ns/user")).ok() };
    // Capabilities in another user namespace do not count here.
    let is_ours = namespace(&thread.to_string()).is_some_and(|theirs| Some(theirs) == namespace("self"));
    Some(if is_ours { credentials } else { Credentials { capabilities: 0, ..credentials } })
}

fn parse(status: &str) -> Option<Credentials> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let groups = field("Groups:")?.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect();
    let capabilities = u64::from_str_radix(field("CapEff:")?, 16).ok()?;
    Some(Credentials { groups, capabilities })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_capabilities_are_read_from_the_status_of_a_thread() {
        let status = "Name:\tx\nUid:\t1\t1\t1\t1\nGroups:\t4 24 1000 \nCapPrm:\t0000000000000000\nCapEff:\t0000000000000006\n";
        assert_eq!(parse(status), Some(Credentials { groups: vec![4, 24, 1000], capabilities: 6 }));
        assert_eq!(parse("Groups:\t\nCapEff:\t0\n"), Some(Credentials::default()));
        assert_eq!(parse("Name:\tx\n"), None);
    }

    #[test]
    fn a_thread_that_cannot_be_seen_has_no_credentials() {
        assert_eq!(look(0), None);
        assert_eq!(look(u32::MAX), None);
        assert!(look(std::process::id()).is_some());
    }
}
