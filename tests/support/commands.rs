//! Runs commands to completion and captures output and exit code.

use super::mounting::{Home, text};
use serde_json::Value;

/// Runs a command that must succeed; returns its standard output.
pub fn prints(home: &Home, arguments: &[&str]) -> String {
    let output = home.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The same with `--format json`, parsed.
pub fn json(home: &Home, arguments: &[&str]) -> Value {
    let printed = prints(home, &[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{printed}"))
}

/// A manifest, parsed.
pub fn manifest(home: &Home, reference: &str) -> Value {
    serde_json::from_str(&prints(home, &["manifest", "get", reference])).unwrap()
}

/// Runs a command that must fail with this exit code and this text among its messages, without printing a result.
pub fn fails(home: &Home, arguments: &[&str], code: i32, word: &str) {
    let output = home.run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(messages.contains(word), "{arguments:?}: {messages}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
}

/// The reference of the layout of a fixture.
pub fn fixture(name: &str) -> String {
    format!("oci:{}", super::layouts::fixtures().join(name).join("layout").display())
}
