//! Credential helpers: `docker-credential-NAME get`, the server on standard input, JSON on standard output.
//!
//! <https://github.com/docker/docker-credential-helpers#development>. A helper is a child process with a time limit
//! and capped output; it is killed when the limit is over. It gets the environment without what is meant for ocifs. Nothing that it prints to standard error is shown, since
//! that may hold secrets.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::credential::{Credential, Secret};
use crate::sys::process;

/// How long a helper may take.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// Largest answer of a helper.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// Messages of helpers that have no credential.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
struct HelperOutput {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: Secret,
}

/// Asks a helper; `None` where it has nothing for the server.
pub(super) async fn get(directories: &[PathBuf], name: &str, server: &str, limit: Duration) -> Result<Option<Credential>, String> {
    let program = find(directories, name)?;
    let failed = |what: &str| format!("credential helper docker-credential-{name} {what}");
    let mut command = Command::from(process::other_program(program));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(&format!("cannot be started: {error}")))?;
    let talk = tokio::time::timeout(limit, talk(&mut child, server)).await;
    let (success, output) = match talk {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(&format!("failed: {error}"))),
        Err(_) => {
            // Reaped here, so that no zombie stays; dropping would only kill.
            let _ = child.kill().await;
            return Err(failed(&format!("did not answer within {} s and was stopped", limit.as_secs())));
        }
    };
    if output.len() as u64 > OUTPUT_LIMIT {
        return Err(failed("printed more than 64 KiB"));
    }
    let text = std::str::from_utf8(&output).map_err(|_| failed("did not print text"))?;
    if !success {
        return if text.contains(NOT_FOUND) { Ok(None) } else { Err(failed("reported an error; run it by hand to see it")) };
    }
    let answer: HelperOutput = serde_json::from_str(text).map_err(|_| failed("did not print the JSON that helpers print"))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if answer.user == "<token>" {
        Credential::IdentityToken(answer.secret)
    } else {
        Credential::Password { user: answer.user, password: answer.secret }
    }))
}

async fn talk(child: &mut Child, server: &str) -> std::io::Result<(bool, Zeroizing<Vec<u8>>)> {
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(server.as_bytes()).await {
            // A helper that does not read its input may still answer.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let mut output = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_LIMIT + 1).read_to_end(&mut output).await?;
    }
    if output.len() as u64 > OUTPUT_LIMIT {
        child.kill().await?;
        return Ok((false, output));
    }
    Ok((child.wait().await?.success(), output))
}

/// The program of a helper. Its name comes from a file, so it must be a plain word.
fn find(directories: &[PathBuf], name: &str) -> Result<PathBuf, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(format!("`{}` cannot be the name of a credential helper", name.chars().take(64).collect::<String>().escape_debug()));
    }
    let file = format!("docker-credential-{name}");
    let absolute = directories.iter().filter(|directory| directory.is_absolute());
    let mut candidates = absolute.map(|directory: &PathBuf| directory.join(&file));
    candidates.find(|path: &PathBuf| Path::is_file(path)).ok_or_else(|| format!("credential helper {file} is not installed (not in PATH)"))
}
