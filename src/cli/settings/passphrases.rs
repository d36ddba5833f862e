//! Passphrases from files, descriptors, commands, the environment or a prompt, tried in command-line order.
//!
//! One trailing newline is dropped, nothing else. Secrets are wiped from memory when dropped, never printed, and never stay readable in
//! `/proc/*/cmdline`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{ArgAction, ArgMatches, Args};
use zeroize::Zeroizing;

use crate::cli::exit::{Code, Failure};
use crate::cli::terminal::{escape, message};
use crate::seal::Passphrase;
use crate::sys::{process, terminal};

/// Longest passphrase, in bytes.
const LIMIT: u64 = 64 << 10;

/// Flags that give passphrases.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Encrypted artifacts")]
pub struct Flags {
    /// Read a passphrase from this file; repeatable, tried in order
    #[arg(long = "passphrase-file", value_name = "FILE", action = ArgAction::Append)]
    pub files: Vec<PathBuf>,

    /// Read a passphrase from this open file descriptor; repeatable
    #[arg(long = "passphrase-fd", value_name = "N", action = ArgAction::Append)]
    pub descriptors: Vec<u32>,

    /// Read a passphrase from the output of this shell command; repeatable
    #[arg(long = "passphrase-command", value_name = "COMMAND", action = ArgAction::Append)]
    pub commands: Vec<String>,

    /// The passphrase itself. Other users may see it while the command starts; prefer a file
    #[arg(long = "passphrase", value_name = "SECRET", action = ArgAction::Append)]
    pub literal: Vec<String>,

    /// Prompt for a passphrase on the terminal
    #[arg(long = "ask-passphrase")]
    pub ask: bool,
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Flags").field("files", &self.files).field("literal", &self.literal.len()).finish_non_exhaustive()
    }
}

/// A source of a passphrase.
#[derive(Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// An open descriptor.
    Descriptor(u32),
    /// A shell command.
    Command(String),
    /// The passphrase itself.
    Literal(Zeroizing<String>),
    /// The terminal.
    Prompt,
}

/// The sources on a command line, in the order typed, across kinds.
pub fn in_order(flags: &Flags, matches: &ArgMatches) -> Vec<Origin> {
    let mut found: Vec<(usize, Origin)> = Vec::new();
    let mut add = |name: &str, origins: Vec<Origin>| {
        let places = matches.indices_of(name).into_iter().flatten();
        found.extend(places.zip(origins));
    };
    add("files", flags.files.iter().cloned().map(Origin::File).collect());
    add("descriptors", flags.descriptors.iter().copied().map(Origin::Descriptor).collect());
    add("commands", flags.commands.iter().cloned().map(Origin::Command).collect());
    add("literal", flags.literal.iter().cloned().map(|text| Origin::Literal(Zeroizing::new(text))).collect());
    found.sort_by_key(|(place, _)| *place);
    let mut origins: Vec<Origin> = found.into_iter().map(|(_, origin)| origin).collect();
    if flags.ask {
        origins.push(Origin::Prompt);
    }
    origins
}

/// Keeps secrets out of core dumps and swap. Call before reading the first one; forked processes inherit it.
pub fn protect_memory() {
    if let Err(error) = process::protect_memory() {
        tracing::warn!(%error, "cannot protect memory that holds keys");
    }
}

/// Removes passphrases from the process's visible arguments, with a warning.
pub fn hide_secrets(flags: &Flags) {
    if flags.literal.is_empty() {
        return;
    }
    message::warn("--passphrase is visible to others on this machine while the command starts; prefer --passphrase-file");
    if let Err(error) = wipe_from_command_line() {
        message::warn(&format!("the passphrase stays visible in the process list: {error}"));
    }
}

/// Reads every passphrase at once, so that a wrong path fails the command rather than a later read.
///
/// # Errors
/// A source is unreadable; the message names the source, never the secret.
pub fn read_all(origins: &[Origin]) -> Result<Vec<Passphrase>, Failure> {
    origins.iter().map(read).collect()
}

fn read(origin: &Origin) -> Result<Passphrase, Failure> {
    let bytes = match origin {
        Origin::File(path) => File::open(path)
            .inspect(|file| warn_if_readable(file, path))
            .and_then(read_bounded)
            .map_err(|error| failure(format!("cannot read the passphrase file {}: {error}", escape::path(path)))),
        // A path below /dev/fd reopens the same pipe, file or here-document.
        Origin::Descriptor(number) => File::open(format!("/dev/fd/{number}"))
            .and_then(read_bounded)
            .map_err(|error| failure(format!("cannot read the passphrase from descriptor {number}: {error}"))),
        Origin::Command(command) => run(command),
        Origin::Literal(text) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        Origin::Prompt => terminal::ask_secret("Passphrase: ")
            .map(Zeroizing::new)
            .map_err(|error| failure(format!("cannot ask for a passphrase: {error}"))),
    }?;
    let literal = matches!(origin, Origin::Literal(_) | Origin::Prompt);
    let text = if literal { &bytes[..] } else { bytes.strip_suffix(b"\n").unwrap_or(&bytes) };
    if text.is_empty() {
        return Err(failure("a passphrase is empty"));
    }
    Ok(Passphrase::new(text.to_vec()))
}

/// Warns if every user can read a passphrase file.
fn warn_if_readable(file: &File, path: &Path) {
    if file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o004 != 0) {
        let shown = escape::path(path);
        message::warn(&format!("the passphrase file {shown} is readable by every user; run `chmod go= {shown}`"));
    }
}

fn failure(message: impl Into<String>) -> Failure {
    Failure::new(Code::Key, message)
}

fn read_bounded(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserve all the room at once: a growing vector leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 1));
    source.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 64 KiB"));
    }
    Ok(bytes)
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let refuse = |what: String| failure(format!("the passphrase command `{}` {what}", command.escape_debug()));
    let mut child = process::other_program("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| refuse(format!("cannot be started: {error}")))?;
    let output = child.stdout.take().map(read_bounded).transpose().map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let status = child.wait().map_err(|error| refuse(format!("cannot be waited for: {error}")))?;
    if !status.success() {
        return Err(refuse(format!("failed ({status})")));
    }
    Ok(output.unwrap_or_default())
}

/// Overwrites the values of `--passphrase` in this process's argument list, so that `ps` shows asterisks. The rest of the command line is
/// left as typed.
///
/// # Errors
/// `/proc` is not mounted, so the secret stays visible.
fn wipe_from_command_line() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    // Fields 48 and 49 of proc(5), counted from the third, the first one after the name.
    let mut fields = fields.split_ascii_whitespace().skip(45).map(str::parse::<u64>);
    let (Some(Ok(start)), Some(Ok(_end))) = (fields.next(), fields.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let arguments = std::fs::read("/proc/self/cmdline")?;
    let mut memory = File::options().write(true).open("/proc/self/mem")?;
    for (offset, length) in secrets_in(&arguments) {
        memory.seek(SeekFrom::Start(start + offset as u64))?;
        memory.write_all(&vec![b'*'; length])?;
    }
    Ok(())
}

/// Offsets and lengths of secrets in a NUL-separated argument list.
fn secrets_in(arguments: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut offset = 0;
    let mut next_is_secret = false;
    for argument in arguments.split(|byte| *byte == 0) {
        if next_is_secret {
            found.push((offset, argument.len()));
        } else if let Some(value) = argument.strip_prefix(b"--passphrase=") {
            found.push((offset + argument.len() - value.len(), value.len()));
        }
        next_is_secret = !next_is_secret && argument == b"--passphrase";
        offset += argument.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Example {
        #[command(flatten)]
        flags: Flags,
    }

    fn origins(arguments: &[&str]) -> Vec<Origin> {
        let matches = <Example as clap::CommandFactory>::command().get_matches_from([&["x"], arguments].concat());
        let example = Example::from_arg_matches(&matches).unwrap();
        in_order(&example.flags, &matches)
    }

    #[test]
    fn command_line_order_applies_across_kinds_of_sources() {
        let found = origins(&["--passphrase-command", "one", "--passphrase-file=two", "--passphrase-fd", "3", "--passphrase-command=four"]);
        let expected = [Origin::Command("one".into()), Origin::File("two".into()), Origin::Descriptor(3), Origin::Command("four".into())];
        assert!(found == expected);
    }

    #[test]
    fn one_newline_at_the_end_is_dropped_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, b" a \n\n").unwrap();
        assert_eq!(read_bounded(File::open(&path).unwrap()).unwrap().as_slice(), b" a \n\n");
        assert!(read_all(&[Origin::File(path.clone()), Origin::Command("printf 'x y'".into())]).is_ok());
        std::fs::write(&path, b"\n").unwrap();
        assert!(read_all(&[Origin::File(path)]).unwrap_err().message.contains("empty"));
    }

    #[test]
    fn failing_sources_are_named_and_exit_with_12() {
        for (origin, word) in [
            (Origin::File("/no/such".into()), "/no/such"),
            (Origin::Descriptor(9999), "9999"),
            (Origin::Command("exit 3".into()), "exit status: 3"),
        ] {
            let failure = read_all(&[origin]).unwrap_err();
            assert_eq!(failure.code, Code::Key);
            assert!(failure.message.contains(word), "{}", failure.message);
        }
    }

    #[test]
    fn only_secrets_are_found_in_an_argument_list() {
        let list = b"ocifs\0mount\0--passphrase\0abc\0--passphrase=defg\0--passphrase-file=x\0--passphrase\0--passphrase\0";
        let found: Vec<&[u8]> = secrets_in(list).into_iter().map(|(offset, length)| &list[offset..offset + length]).collect();
        assert_eq!(found, [b"abc".as_slice(), b"defg", b"--passphrase"]);
    }
}
