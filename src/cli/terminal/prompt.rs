//! Prompts on the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::cli::exit::Failure;

/// Refuses to act unconfirmed without a terminal. `what` completes "this would …".
///
/// # Errors
/// Standard input or standard error is not a terminal.
pub fn needs_terminal(what: &str) -> Result<(), Failure> {
    if has_terminal() {
        return Ok(());
    }
    Err(Failure::usage(format!("this would {what}; without a terminal, confirm with --yes")))
}

/// Whether a user can be asked.
pub fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a yes/no question; the default is no.
///
/// # Errors
/// The terminal cannot be written or read.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    let mut terminal = io::stderr().lock();
    let mut answer = String::new();
    write!(terminal, "{question} [y/N] ")
        .and_then(|()| terminal.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|error| Failure::other(format!("cannot read the confirmation: {error}")))?;
    Ok(is_yes(&answer))
}

/// Asks for a line.
///
/// # Errors
/// The terminal cannot be written or read.
pub fn ask(question: &str) -> Result<String, Failure> {
    let mut terminal = io::stderr().lock();
    let mut answer = String::new();
    write!(terminal, "{question}: ")
        .and_then(|()| terminal.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|error| Failure::other(format!("cannot read from the terminal: {error}")))?;
    Ok(answer.trim().to_owned())
}

/// Whether there is a terminal to ask on.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_confirms() {
        assert!(is_yes("y\n") && is_yes(" YES \n"));
        assert!(!is_yes("") && !is_yes("\n") && !is_yes("yeah\n") && !is_yes("n\n"));
    }
}
