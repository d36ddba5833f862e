//! Flags for one side of a command that reaches two registries: the connection flags with the prefix `from-` or `to-`.
//!
//! Derived from [`Connection`], so a flag added there gets both spellings here.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::flags::Connection;
use super::login::LoginFlags;

/// One side of a command with two registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source.
    From,
    /// The destination.
    To,
}

impl Side {
    const ALL: [Self; 2] = [Self::From, Self::To];

    fn prefix(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::From => "Source registry",
            Self::To => "Destination registry",
        }
    }
}

/// The flags of both sides, read by [`given`].
#[derive(Clone, Debug, Default)]
pub struct Sides;

/// The connection flags as clap knows them.
fn connection() -> Vec<Arg> {
    LoginFlags::augment_args(Connection::augment_args(Command::new("connection"))).get_arguments().cloned().collect()
}

fn id(side: Side, argument: &Arg) -> String {
    format!("{}-{}", side.prefix(), argument.get_id())
}

impl Args for Sides {
    fn augment_args(command: Command) -> Command {
        let renamed = Side::ALL.into_iter().flat_map(|side| {
            connection().into_iter().filter_map(move |argument| {
                let long = format!("{}-{}", side.prefix(), argument.get_long()?);
                // `requires` refers to flags without a prefix; it is checked where both sides are merged.
                let mut plain = Arg::new(id(side, &argument)).long(long).action(argument.get_action().clone());
                if argument.get_action().takes_values() {
                    plain = plain.value_names(argument.get_value_names().unwrap_or_default().to_vec());
                    plain = argument.get_num_args().map_or(plain.clone(), |range| plain.num_args(range));
                }
                let plain = plain.require_equals(argument.is_require_equals_set()).help_heading(side.heading());
                Some(plain.help(format!("--{} for this side only", argument.get_long()?)))
            })
        });
        renamed.fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Sides {
    fn from_arg_matches(_matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _matches: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

/// The flags given for a side, without its prefix.
pub fn given(side: Side, matches: &ArgMatches) -> Vec<String> {
    let mut flags = Vec::new();
    for argument in connection() {
        let (id, Some(long)) = (id(side, &argument), argument.get_long()) else { continue };
        if !matches!(matches.value_source(&id), Some(clap::parser::ValueSource::CommandLine)) {
            continue;
        }
        let values: Vec<String> = matches.get_raw(&id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect();
        match argument.get_action().takes_values() && !values.is_empty() {
            true => flags.extend(values.iter().map(|value| format!("--{long}={value}"))),
            false => flags.push(format!("--{long}")),
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_every_flag_of_a_connection() {
        let command = Sides::augment_args(Command::new("cp"));
        let typed = ["cp", "--from-insecure", "--to-plain-http", "--to-ca-file", "/ca.pem", "--from-plain-http=false"];
        let matches = command.try_get_matches_from(typed).unwrap();
        assert_eq!(given(Side::From, &matches), ["--plain-http=false", "--insecure"]);
        assert_eq!(given(Side::To, &matches), ["--plain-http", "--ca-file=/ca.pem"]);
    }
}
