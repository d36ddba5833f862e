//! Other tools' names for commands, rewritten as ours before parsing.

use std::ffi::OsString;

/// Command names of ORAS, crane, skopeo and oci-packer, and our equivalents. Those that are also names or aliases of ours are not
/// listed.
const SPELLINGS: [(&str, &[&str]); 6] = [
    ("catalog", &["repo", "ls"]),
    ("config", &["manifest", "config"]),
    ("extract", &["pull"]),
    ("list-tags", &["repo", "tags"]),
    ("tags", &["repo", "tags"]),
    ("version", &["--version"]),
];

/// Rewrites the command at a position in our spelling. `crane manifest REF` prints a manifest, which is `manifest get REF` here.
pub fn respell(arguments: &mut Vec<OsString>, place: usize, is_subcommand_of_manifest: impl Fn(&str) -> bool) {
    let word = |place: usize| arguments.get(place).and_then(|argument| argument.to_str());
    let ours = SPELLINGS.iter().find(|(theirs, _)| word(place) == Some(theirs)).map(|(_, ours)| *ours);
    let is_reference = |word: &str| !word.starts_with('-') && !is_subcommand_of_manifest(word);
    if let Some(ours) = ours {
        arguments.splice(place..=place, ours.iter().map(OsString::from));
    } else if word(place) == Some("manifest") && word(place + 1).is_some_and(is_reference) {
        arguments.insert(place + 1, "get".into());
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::command::Cli;

    fn respelled(line: &str) -> String {
        let mut arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        respell(&mut arguments, 1, |word| ["get", "put", "help"].contains(&word));
        arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commands_of_other_tools_are_understood() {
        for (typed, meant) in [
            ("ocifs catalog reg.io", "ocifs repo ls reg.io"),
            ("ocifs list-tags docker://reg.io/a", "ocifs repo tags docker://reg.io/a"),
            ("ocifs version", "ocifs --version"),
            ("ocifs manifest reg.io/a:v1", "ocifs manifest get reg.io/a:v1"),
            ("ocifs manifest get reg.io/a:v1", "ocifs manifest get reg.io/a:v1"),
            ("ocifs manifest --help", "ocifs manifest --help"),
            ("ocifs ls reg.io", "ocifs ls reg.io"),
        ] {
            assert_eq!(respelled(typed), meant);
        }
    }

    #[test]
    fn no_alternative_spelling_hides_our_own_commands() {
        for (theirs, _) in SPELLINGS {
            assert!(Cli::command().find_subcommand(theirs).is_none(), "{theirs}");
        }
    }
}
