//! Messages on standard error, one line each.

use std::io::Write;

use super::escape;

/// Prints a message.
pub fn report(message: &str) {
    // If standard error is closed, nothing can be reported.
    let _ = writeln!(std::io::stderr().lock(), "ocifs: {}", escape::one_line(message));
}

/// Prints a warning.
pub fn warn(message: &str) {
    report(&format!("warning: {message}"));
}
