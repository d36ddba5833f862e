//! Names the user who made a mount.

use crate::cli::terminal::escape;
use crate::sys::mountinfo::Mount;
use crate::sys::process;

/// The other user who made a mount, as `ann (uid 1000)`; `None` if it is this user's own.
pub fn other_owner(mount: &Mount) -> Option<String> {
    let uid = mount.user().filter(|uid| *uid != process::uid())?;
    let users = std::fs::read("/etc/passwd").unwrap_or_default();
    Some(describe(uid, &String::from_utf8_lossy(&users)))
}

fn describe(uid: u32, users: &str) -> String {
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{} (uid {uid})", escape::terminal(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_named_where_the_system_knows_a_name() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(describe(1000, users), "ann (uid 1000)");
        assert_eq!(describe(7, users), "uid 7");
    }
}
