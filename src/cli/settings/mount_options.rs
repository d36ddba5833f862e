//! `-o` lists as in mount(8) and fstab, and the form `mount.ocifs SOURCE DIR [-sfnv] [-o OPTIONS]`.
//!
//! Every flag of `ocifs mount` is an option without the leading hyphens (`cache-size=1G`; underscores work too). Options of mount(8),
//! systemd and file systems in general are accepted and ignored.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, Command};

use crate::cli::exit::Failure;

/// Flags of `ocifs mount` that are not options: they concern one invocation, or would put a secret into a world-readable file.
const NOT_OPTIONS: [&str; 10] = [
    "options",
    "foreground",
    "check-only",
    "verbose",
    "passphrase",
    "ask-passphrase",
    "header",
    "username",
    "password-stdin",
    "identity-token-stdin",
];

/// Options that other programs act on, or that hold for every ocifs mount.
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

/// Rewrites the `-o` lists of `ocifs mount` as flags, in front of the typed ones, which therefore win. `command` has all flags.
///
/// # Errors
/// An option is unknown, lacks its value, or has a value it does not take.
pub fn expand(arguments: &[OsString], lists: &[String], command: &Command) -> Result<Option<Vec<OsString>>, Failure> {
    let mut expanded = Vec::new();
    for list in lists {
        expanded.extend(flags(list, command)?);
    }
    let Some(place) = arguments.iter().position(|argument| argument == "mount").filter(|_| !expanded.is_empty()) else {
        return Ok(None);
    };
    let (before, after) = arguments.split_at(place + 1);
    Ok(Some([before, &expanded, after].concat()))
}

fn flags(list: &str, command: &Command) -> Result<Vec<OsString>, Failure> {
    let mount = command.find_subcommand("mount").into_iter().flat_map(Command::get_arguments);
    let options: Vec<&Arg> = command.get_arguments().chain(mount).collect();
    let mut flags = Vec::new();
    for option in split(list) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option.as_str(), None),
        };
        match value {
            // The later of the two wins; mount(8) itself expands what `user` in fstab implies.
            None if name == "exec" => flags.retain(|flag| flag != "--noexec"),
            None if name == "rw" => flags.retain(|flag| flag != "--read-only"),
            None if name == "ro" => flags.push("--read-only".into()),
            _ if name.trim().is_empty() || IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("comment") => {}
            _ => flags.push(flag(name, value, &options)?),
        }
    }
    Ok(flags)
}

/// One of our options as the flag of that name.
fn flag(name: &str, value: Option<&str>, options: &[&Arg]) -> Result<OsString, Failure> {
    let dashed = name.trim().replace('_', "-");
    let option = options.iter().find(|option| option.get_long() == Some(&dashed)).filter(|_| !NOT_OPTIONS.contains(&dashed.as_str()));
    let Some(option) = option else {
        return Err(Failure::usage(format!(
            "unknown mount option `{}`; options are named like the flags in `ocifs mount --help`",
            name.escape_debug()
        )));
    };
    let needs_value = option.get_num_args().is_none_or(|values| values.min_values() > 0);
    match (option.get_action().takes_values(), value) {
        (true, Some(value)) => Ok(format!("--{dashed}={value}").into()),
        (true, None) if needs_value => Err(Failure::usage(format!("the mount option `{dashed}` needs a value: -o {dashed}=…"))),
        (false, Some(_)) => Err(Failure::usage(format!("the mount option `{dashed}` takes no value"))),
        _ => Ok(format!("--{dashed}").into()),
    }
}

/// Splits at commas; a backslash escapes the next character.
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

/// Whether mount(8) called us: under the name `mount.ocifs`, or as `mount.fuse` runs the program for type `fuse.ocifs`, under its own
/// name with `SOURCE DIR -o OPTIONS`.
pub fn is_mount_helper(arguments: &[OsString], is_command: impl Fn(&OsStr) -> bool) -> bool {
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    let by_name = name.is_some_and(|name| name == "mount.ocifs" || name == "mount.fuse.ocifs");
    by_name
        || matches!(arguments, [_, source, _, flag, _] if flag == "-o" && !source.as_encoded_bytes().starts_with(b"-") && !is_command(source))
}

/// Translates a call by mount(8) to arguments of `ocifs`.
///
/// # Errors
/// An option is not one that mount(8) passes, or an argument is missing.
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
            // Only mount(8) cares about the type and the namespace.
            None if text == "-t" || text == "-N" => drop(rest.next()),
            None if text.chars().skip(1).all(|letter| "sfnv".contains(letter)) => {
                verbose |= text.contains('v');
                fake |= text.contains('f');
            }
            None => return Err(Failure::usage(format!("unknown option `{}` of mount.ocifs", text.escape_debug()))),
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
    use clap::CommandFactory;

    use super::*;
    use crate::cli::command::Cli;

    fn flags(list: &str) -> Result<Vec<OsString>, Failure> {
        super::flags(list, &Cli::command())
    }

    fn strings(flags: Vec<OsString>) -> Vec<String> {
        flags.into_iter().map(|flag| flag.into_string().unwrap()).collect()
    }

    #[test]
    fn own_options_become_flags_and_foreign_ones_are_accepted() {
        let list = "ro,_netdev,noauto,user,x-systemd.automount,cache_size=1G,allow_other,passphrase-file=/a\\,b";
        assert_eq!(strings(flags(list).unwrap()), ["--read-only", "--cache-size=1G", "--allow-other", "--passphrase-file=/a,b"]);
        assert_eq!(flags("").unwrap(), Vec::<OsString>::new());
    }

    #[test]
    fn the_last_of_exec_and_noexec_wins() {
        assert_eq!(strings(flags("rw,noexec,nosuid,nodev,user=ann").unwrap()), ["--noexec"]);
        assert_eq!(flags("noexec,user,exec").unwrap(), Vec::<OsString>::new());
    }

    #[test]
    fn the_last_of_ro_and_rw_wins() {
        assert_eq!(flags("ro,rw").unwrap(), Vec::<OsString>::new());
        assert_eq!(strings(flags("rw,ro,staging_size=1G,allow-delete").unwrap()), ["--read-only", "--staging-size=1G", "--allow-delete"]);
    }

    #[test]
    fn calls_by_mount_are_distinguished_from_commands() {
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

    #[test]
    fn options_count_as_flags_and_typed_flags_win() {
        let arguments =
            ["ocifs", "mount", "--cache-size=1G", "-o", "ro,cache-size=2G,memory-limit=64M", "reg.io", "/mnt"].map(OsString::from);
        let expanded = expand(&arguments, &["ro,cache-size=2G,memory-limit=64M".to_owned()], &Cli::command()).unwrap().unwrap();
        let matches = Cli::command().get_matches_from(expanded);
        let matches = matches.subcommand_matches("mount").unwrap();
        assert!(matches.get_flag("read_only"));
        assert_eq!((matches.get_one::<u64>("cache_size"), matches.get_one("memory_limit")), (Some(&(1 << 30)), Some(&(64_u64 << 20))));
    }

    #[test]
    fn options_of_other_tools_change_nothing() {
        let arguments = ["ocifs", "mount", "-o", "noauto", "reg.io", "/mnt"].map(OsString::from);
        assert_eq!(expand(&arguments, &["noauto".to_owned()], &Cli::command()).unwrap(), None);
    }

    #[test]
    fn every_option_of_the_help_can_be_a_mount_option() {
        for list in ["plain-http", "plain-http=false", "config=/c.yaml", "repo=a", "passphrase-fd=3", "nonempty", "trusted-realm=o"] {
            assert_eq!(strings(flags(list).unwrap()), [format!("--{list}")]);
        }
        for list in ["foreground", "passphrase=x", "ask-passphrase", "check-only", "options=ro", "verbose"] {
            assert!(flags(list).unwrap_err().message.contains("unknown mount option"), "{list}");
        }
    }
}
