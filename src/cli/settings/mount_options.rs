//! `-o` as mount(8) and fstab write it, and the form `mount.ocifs SOURCE DIR [-sfnv] [-o OPTIONS]`.
//!
//! Every option of ours has the name of its flag without the hyphens in front (`cache-size=1G`, also with
//! underscores). Options that belong to mount(8), systemd or every file system are accepted and mean nothing here.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::cli::exit::Failure;

/// Flags of `ocifs mount` that take a value, with their names as options.
const VALUES: [&str; 31] = [
    "cache-dir",
    "cache-size",
    "cache-min-free",
    "memory-limit",
    "state-dir",
    "tag-ttl",
    "io-timeout",
    "verify",
    "view",
    "platform",
    "repo",
    "uid",
    "gid",
    "file-mode",
    "dir-mode",
    "ca-file",
    "cert-file",
    "key-file",
    "registry-config",
    "passphrase-file",
    "passphrase-fd",
    "passphrase-command",
    "config",
    "log-file",
    "log-format",
    "wait",
    "trusted-realm",
    "staging-size",
    "exit-timeout",
    "as-kind",
    "concurrency",
];

/// Flags of `ocifs mount` without a value.
const SWITCHES: [&str; 10] =
    ["allow-other", "expose-metadata", "plain-http", "insecure", "read-only", "offline", "nonempty", "noexec", "allow-delete", "plaintext"];

/// Options that others act on, or that are true of every mount of ours.
const IGNORED: [&str; 30] = [
    "_netdev",
    "auto",
    "noauto",
    "nofail",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "defaults",
    "nosuid",
    "nodev",
    "async",
    "noatime",
    "relatime",
    "nodiratime",
    "nodelalloc",
    "default_permissions",
    "suid",
    "dev",
    "atime",
    "lazytime",
    "nolazytime",
    "strictatime",
    "nostrictatime",
    "norelatime",
    "sync",
    "dirsync",
    "iversion",
    "noiversion",
];

/// The flags that one `-o` list means.
///
/// # Errors
/// An option that nobody knows, or one of ours with a value missing or too many.
pub fn flags(list: &str) -> Result<Vec<OsString>, Failure> {
    let mut flags = Vec::new();
    for option in split(list) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option.as_str(), None),
        };
        let dashed = name.trim().replace('_', "-");
        match value {
            // The later of two counts; mount(8) itself writes out what `user` in fstab implies.
            None if name == "exec" => flags.retain(|flag| flag != "--noexec"),
            None if name == "rw" => flags.retain(|flag| flag != "--read-only"),
            _ if dashed.is_empty() || IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("comment") => {}
            None if name == "ro" => flags.push("--read-only".into()),
            None if SWITCHES.contains(&dashed.as_str()) => flags.push(format!("--{dashed}").into()),
            Some(value) if dashed == "plain-http" => flags.push(format!("--plain-http={value}").into()),
            Some(value) if VALUES.contains(&dashed.as_str()) => flags.push(format!("--{dashed}={value}").into()),
            None if VALUES.contains(&dashed.as_str()) => {
                return Err(Failure::usage(format!("the mount option `{dashed}` needs a value: -o {dashed}=…")));
            }
            Some(_) if SWITCHES.contains(&dashed.as_str()) => {
                return Err(Failure::usage(format!("the mount option `{dashed}` takes no value")));
            }
            _ => {
                return Err(Failure::usage(format!(
                    "unknown mount option `{}`; options have the names of the flags of `ocifs mount --help`",
                    name.escape_debug()
                )));
            }
        }
    }
    Ok(flags)
}

/// Splits at commas; a backslash keeps the next character.
fn split(list: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match (character, options.last_mut()) {
            (',', _) => options.push(String::new()),
            ('\\', Some(option)) => option.extend(characters.next()),
            (_, Some(option)) => option.push(character),
            (_, None) => {}
        }
    }
    options
}

/// Whether this is a call of mount(8): by the name `mount.ocifs`, or as `mount.fuse` calls the program for the type
/// `fuse.ocifs`, by its own name with `SOURCE DIR -o OPTIONS`.
pub fn is_mount_helper(arguments: &[OsString], is_command: impl Fn(&OsStr) -> bool) -> bool {
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    let by_name = name.is_some_and(|name| name == "mount.ocifs" || name == "mount.fuse.ocifs");
    by_name
        || matches!(arguments, [_, source, _, flag, _] if flag == "-o" && !source.as_encoded_bytes().starts_with(b"-") && !is_command(source))
}

/// The arguments of `ocifs` that a call by mount(8) means.
///
/// # Errors
/// An option that mount(8) does not pass, or a missing argument.
pub fn from_mount_helper(arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let mut rest = arguments.into_iter();
    let program = rest.next().unwrap_or_else(|| "mount.ocifs".into());
    let mut positional = Vec::new();
    let mut options = Vec::new();
    let mut verbose = false;
    let mut fake = false;
    while let Some(argument) = rest.next() {
        let Some(text) = argument.to_str().filter(|text| text.starts_with('-') && text.len() > 1) else {
            positional.push(argument);
            continue;
        };
        match text.strip_prefix("-o") {
            Some("") => options.push(rest.next().ok_or_else(|| Failure::usage("-o needs a list of options"))?),
            Some(list) => options.push(list.into()),
            // The type and the namespace are mount(8)'s own business; nothing follows from them here.
            None if text == "-t" || text == "-N" => drop(rest.next()),
            None if text.chars().skip(1).all(|letter| "sfnv".contains(letter)) => {
                verbose |= text.contains('v');
                fake |= text.contains('f');
            }
            None => return Err(Failure::usage(format!("mount.ocifs does not know `{}`", text.escape_debug()))),
        }
    }
    if positional.len() != 2 {
        return Err(Failure::usage("usage: mount.ocifs SOURCE DIR [-sfnv] [-o OPTIONS]"));
    }
    let mut made = vec![program, "mount".into()];
    made.extend(options.into_iter().flat_map(|list| ["-o".into(), list]));
    if verbose {
        made.push("-v".into());
    }
    if fake {
        made.push("--check-only".into());
    }
    made.push("--".into());
    made.extend(positional);
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(flags: Vec<OsString>) -> Vec<String> {
        flags.into_iter().map(|flag| flag.into_string().unwrap()).collect()
    }

    #[test]
    fn our_options_become_flags_and_those_of_others_are_accepted() {
        let list = "ro,_netdev,noauto,user,x-systemd.automount,cache_size=1G,allow_other,passphrase-file=/a\\,b";
        assert_eq!(strings(flags(list).unwrap()), ["--read-only", "--cache-size=1G", "--allow-other", "--passphrase-file=/a,b"]);
        assert_eq!(flags("").unwrap(), Vec::<OsString>::new());
    }

    #[test]
    fn programs_run_unless_the_last_word_on_it_forbids_them() {
        assert_eq!(strings(flags("rw,noexec,nosuid,nodev,user=ann").unwrap()), ["--noexec"]);
        assert_eq!(flags("noexec,user,exec").unwrap(), Vec::<OsString>::new());
    }

    #[test]
    fn the_last_word_on_writing_counts() {
        assert_eq!(flags("ro,rw").unwrap(), Vec::<OsString>::new());
        assert_eq!(strings(flags("rw,ro,staging_size=1G,allow-delete").unwrap()), ["--read-only", "--staging-size=1G", "--allow-delete"]);
    }

    #[test]
    fn calls_of_mount_are_told_from_commands() {
        let helper =
            |arguments: &[&str]| is_mount_helper(&arguments.iter().map(OsString::from).collect::<Vec<_>>(), |name| name == "mount");
        assert!(helper(&["/sbin/mount.ocifs", "reg.io", "/mnt"]));
        assert!(helper(&["ocifs", "reg.io/team", "/mnt", "-o", "ro,dev,suid"]));
        assert!(helper(&["ocifs", "reg.io/team", "/dev/fd/3", "-o", "ro"]));
        assert!(!helper(&["ocifs", "mount", "reg.io", "-o", "ro"]));
        assert!(!helper(&["ocifs", "-v", "mount", "-o", "ro"]));
        assert!(!helper(&["ocifs", "mounts"]));
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert!(flags("ro,colour=blue").unwrap_err().message.contains("`colour`"));
        assert!(flags("cache-size").unwrap_err().message.contains("needs a value"));
        assert!(flags("allow-other=yes").unwrap_err().message.contains("takes no value"));
    }

    #[test]
    fn the_mount_helper_form_is_the_mount_command() {
        let given = ["/sbin/mount.ocifs", "reg.io/team", "/mnt", "-sn", "-v", "-o", "rw,noauto", "-t", "ocifs"];
        let made = from_mount_helper(given.map(OsString::from).to_vec()).unwrap();
        assert_eq!(strings(made), ["/sbin/mount.ocifs", "mount", "-o", "rw,noauto", "-v", "--", "reg.io/team", "/mnt"]);
        assert!(from_mount_helper(vec!["mount.ocifs".into(), "x".into()]).is_err());
        assert!(from_mount_helper(["mount.ocifs", "x", "/mnt", "-Z"].map(OsString::from).to_vec()).is_err());
    }
}
