//! Messages on standard error, one line each.

use std::io::Write;

use super::escape;

/// Prints a message.
pub fn report(message: &str) {
    // Nothing can be reported if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "ocifs: {}", escape::one_line(message));
}

/// Prints a warning.
pub fn warn(message: &str) {
    report(&format!("warning: {message}"));
}
