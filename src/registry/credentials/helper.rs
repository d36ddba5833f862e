//! Credential helpers: `docker-credential-NAME get`, the server on standard input, JSON on standard output; `store` and `erase`.
//!
//! <https://github.com/docker/docker-credential-helpers#development>. A helper is a child process with a time limit and capped output; it is
//! killed at the limit. Its environment lacks the variables meant for ocifs. Its standard error is never shown, since it may hold
//! secrets.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::credential::{Credential, Secret};
use crate::sys::process;

/// Time limit of a helper.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// Largest answer of a helper, in bytes.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// The output of a helper without a credential.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
struct HelperOutput {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: Secret,
}

/// The input of a helper.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HelperInput<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    username: &'a str,
    secret: &'a str,
}

/// The user name that marks an identity token.
const TOKEN_USER: &str = "<token>";

/// Asks a helper; `None` if it has no credential for the server.
pub(super) async fn get(directories: &[PathBuf], name: &str, server: &str, limit: Duration) -> Result<Option<Credential>, String> {
    let Some(output) = run(directories, (name, "get"), server, limit).await? else { return Ok(None) };
    let answer: Result<HelperOutput, _> = serde_json::from_slice(&output);
    let answer = answer.map_err(|_| format!("credential helper docker-credential-{name} did not print the expected JSON"))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if answer.user == TOKEN_USER {
        Credential::IdentityToken(answer.secret)
    } else {
        Credential::Password { user: answer.user, password: answer.secret }
    }))
}

/// Stores a credential with a helper. Accepts only passwords and identity tokens.
pub(super) async fn store(directories: &[PathBuf], name: &str, server: &str, credential: &Credential) -> Result<(), String> {
    let (username, secret) = match credential {
        Credential::Password { user, password } => (user.as_str(), password),
        Credential::IdentityToken(token) => (TOKEN_USER, token),
        Credential::Anonymous | Credential::RegistryToken(_) => return Err("helpers store only passwords and identity tokens".to_owned()),
    };
    let input = serde_json::to_string(&HelperInput { server, username, secret: secret.expose() });
    let input = Zeroizing::new(input.map_err(|error| error.to_string())?);
    run(directories, (name, "store"), &input, LIMIT).await.map(drop)
}

/// Erases a helper's credential for a server.
pub(super) async fn erase(directories: &[PathBuf], name: &str, server: &str) -> Result<(), String> {
    run(directories, (name, "erase"), server, LIMIT).await.map(drop)
}

/// Runs a helper and returns its output; `None` if it has no credential for the server.
async fn run(
    directories: &[PathBuf],
    (name, verb): (&str, &str),
    input: &str,
    limit: Duration,
) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let program = find(directories, name)?;
    let failed = |what: &str| format!("credential helper docker-credential-{name} {what}");
    let mut command = Command::from(process::other_program(program));
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(&format!("cannot be started: {error}")))?;
    let talk = tokio::time::timeout(limit, talk(&mut child, input)).await;
    let (success, output) = match talk {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(&format!("failed: {error}"))),
        Err(_) => {
            // Reaped here, so that no zombie stays; dropping would only kill it.
            let _ = child.kill().await;
            return Err(failed(&format!("did not answer within {} s and was stopped", limit.as_secs())));
        }
    };
    if output.len() as u64 > OUTPUT_LIMIT {
        return Err(failed("printed more than 64 KiB"));
    }
    let text = std::str::from_utf8(&output).map_err(|_| failed("did not print text"))?;
    match (success, text.contains(NOT_FOUND)) {
        (true, _) => Ok(Some(output)),
        (false, true) => Ok(None),
        (false, false) => Err(failed("reported an error; run it by hand to see it")),
    }
}

async fn talk(child: &mut Child, text: &str) -> std::io::Result<(bool, Zeroizing<Vec<u8>>)> {
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text.as_bytes()).await {
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

/// Finds a helper program. Its name comes from a file, so it must be a plain word.
fn find(directories: &[PathBuf], name: &str) -> Result<PathBuf, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(format!("`{}` is not a valid credential helper name", name.chars().take(64).collect::<String>().escape_debug()));
    }
    let file = format!("docker-credential-{name}");
    let absolute = directories.iter().filter(|directory| directory.is_absolute());
    let mut candidates = absolute.map(|directory: &PathBuf| directory.join(&file));
    candidates.find(|path: &PathBuf| Path::is_file(path)).ok_or_else(|| format!("credential helper {file} is not installed (not in PATH)"))
}
