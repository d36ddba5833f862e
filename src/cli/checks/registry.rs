//! Checks whether a registry answers, what it permits this user, and whether an artifact can be read lazily. Writes nothing.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::Finding;
use crate::cli::exit::Failure;
use crate::cli::source::reference;
use crate::cli::terminal::units;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Manifest, Registry, Repository, Source};
use crate::registry::{CredentialScope, Credentials, Probed, Pull, Push};

/// Longest wait for DNS and for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks the registry or layout of a source. Stops at the first step that makes the others pointless.
pub async fn check(source: &Source, push: &dyn Push, credentials: &Credentials) -> Vec<Finding> {
    let mut findings = Vec::new();
    let repository = reference::repository(source).ok();
    if let Some(registry) = reference::registry(source) {
        findings.extend(connection(&address(push.origin())).await);
        if findings.iter().any(|finding| finding.verdict == super::Verdict::Failed) {
            return findings;
        }
        findings.push(credential(registry, repository.as_ref(), credentials).await);
        findings.push(answers(push, repository.as_ref()).await);
        if findings.last().is_some_and(|finding| finding.verdict == super::Verdict::Failed) {
            return findings;
        }
        findings.push(catalog(push).await);
    }
    if let Some(repository) = &repository {
        findings.push(tags(push, repository).await);
        findings.push(uploads(push, repository).await);
        if reference::version(source).is_some()
            && findings.iter().all(|finding| finding.step != "tags" || finding.verdict == super::Verdict::Ok)
        {
            findings.extend(artifact(source, push).await);
        }
    }
    findings
}

/// The result of a step and the time it took.
async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> (Result<T, E>, String) {
    let started = Instant::now();
    let answer = work.await;
    (answer, format!("{} ms", started.elapsed().as_millis()))
}

/// Host and port of an origin, as the resolver takes them.
fn address(origin: &str) -> String {
    let (scheme, host) = origin.split_once("://").unwrap_or(("https", origin));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    match (has_port, scheme) {
        (true, _) => host.to_owned(),
        (false, "http") => format!("{host}:80"),
        (false, _) => format!("{host}:443"),
    }
}

/// Checks the name and the port. The first request checks TLS.
async fn connection(host: &str) -> Vec<Finding> {
    let resolve = async {
        let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(host)).await;
        let found = found.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        Ok::<_, String>(found.collect::<Vec<_>>())
    };
    let (resolved, took) = timed(resolve).await;
    let addresses = match resolved {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return vec![Finding::failed("name", format!("{host} has no address"), "check the spelling of the registry")],
        Err(error) => {
            let advice = "check the spelling of the registry, the network and DNS";
            return vec![Finding::failed("name", format!("{host}: {error}"), advice)];
        }
    };
    let shown: Vec<String> = addresses.iter().take(3).map(|address| address.ip().to_string()).collect();
    let name = Finding::ok("name", format!("{host} is {} ({took})", shown.join(", ")));
    let connect = async {
        let connected = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(addresses.as_slice())).await;
        connected.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())
    };
    let (connected, took) = timed(connect).await;
    let connected = match connected {
        Ok(_) => Finding::ok("connection", format!("the port is open ({took})")),
        // A proxy may reach what this machine cannot.
        Err(error) => Finding::warning("connection", error, "check port and firewall; behind a proxy this may not matter"),
    };
    vec![name, connected]
}

/// Reports whether a mirror answers.
pub fn mirror(probed: Probed) -> Finding {
    let (name, file) = (probed.name, probed.file.display());
    match probed.answer {
        Ok(()) => Finding::ok("mirror", format!("{name} answers (from {file})")),
        Err(error) => {
            let advice = "reading goes on without it; start it, log in to it, or change the file (--no-mirrors ignores it)";
            Finding::warning("mirror", format!("{name} (from {file}): {error}"), advice)
        }
    }
}

async fn credential(registry: &Registry, repository: Option<&Repository>, credentials: &Credentials) -> Finding {
    match credentials.find(CredentialScope { registry, repository, tls: true }, false).await {
        Ok(found) => {
            let from = found.source.map_or_else(|| "none stored; anonymous".to_owned(), |source| format!("from {source}"));
            match found.notes.first() {
                None => Finding::ok("credential", from),
                Some(note) => Finding::warning("credential", format!("{from}; {note}"), "check the credential helper"),
            }
        }
        Err(error) => Finding::failed("credential", error.message, "fix the file, or choose another with --registry-config"),
    }
}

async fn answers(push: &dyn Push, repository: Option<&Repository>) -> Finding {
    match timed(push.ping(repository)).await {
        (Ok(()), took) => Finding::ok("api", format!("the registry answers ({took})")),
        (Err(error), _) => failed("api", error),
    }
}

async fn catalog(push: &dyn Push) -> Finding {
    match push.repositories(None).await {
        Ok(page) => {
            let more = if page.next.is_some() { " and more" } else { "" };
            Finding::ok("catalog", format!("{}{more}", units::show_count(page.names.len(), "repository")))
        }
        Err(error) => Finding::warning(
            "catalog",
            error.message,
            "repositories cannot be listed; name those that `ls` should show with --repo; others can still be opened by name",
        ),
    }
}

async fn tags(push: &dyn Push, repository: &Repository) -> Finding {
    match push.tags(repository, None).await {
        Ok(page) => {
            let more = if page.next.is_some() { " and more" } else { "" };
            Finding::ok("tags", format!("{}{more} in {repository}", units::show_count(page.names.len(), "tag")))
        }
        Err(error) if error.kind == ErrorKind::NotFound => {
            let advice = "it appears with its first push; otherwise check the name; some registries also say this when access is denied";
            Finding::warning("tags", format!("there is no repository {repository} yet"), advice)
        }
        Err(error) => failed("tags", error),
    }
}

async fn uploads(push: &dyn Push, repository: &Repository) -> Finding {
    match push.may_push(repository).await {
        Ok(()) => Finding::ok("uploads", format!("this user may push to {repository}")),
        Err(error) => Finding::warning("uploads", error.message, "reading works without; to publish, log in as a user with push access"),
    }
}

/// Checks the manifest, the referrers and range requests.
async fn artifact(source: &Source, push: &dyn Push) -> Vec<Finding> {
    let found = async {
        let (repository, version) = reference::named(source, push).await?;
        let manifest = push.manifest(&repository, &version).await?;
        Ok::<_, Failure>((repository, manifest))
    };
    let (repository, manifest) = match found.await {
        Ok(found) => found,
        Err(failure) => return vec![Finding::failed("artifact", failure.message, "check tag and spelling")],
    };
    let mut findings = vec![Finding::ok("artifact", format!("{} ({})", manifest.digest, manifest.media_type))];
    findings.push(match push.referrers(&repository, &manifest.digest).await {
        Ok(list) => Finding::ok("referrers", format!("{} found", list.len())),
        Err(error) => Finding::warning("referrers", error.message, "signatures and attached indexes will not be found"),
    });
    findings.extend(match largest(&manifest) {
        Some(layer) => Some(ranges(push, &repository, &layer).await),
        None => None,
    });
    findings
}

fn largest(manifest: &Manifest) -> Option<Descriptor> {
    manifest.image()?.layers.iter().filter(|layer| layer.size > 1).max_by_key(|layer| layer.size).cloned()
}

async fn ranges(push: &dyn Pull, repository: &Repository, layer: &Descriptor) -> Finding {
    let read = async {
        let mut stream = push.blob(repository, layer, layer.size - 1..layer.size).await?;
        let first = stream.next().await;
        first.transpose()?.ok_or_else(|| Error::new(ErrorKind::Unreachable, "the registry sent nothing"))
    };
    match timed(read).await {
        (Ok(_), took) => {
            Finding::ok("ranges", format!("the last byte of the largest layer ({}) took {took}", units::show_size(layer.size)))
        }
        (Err(error), _) => failed("ranges", error),
    }
}

fn failed(step: &'static str, error: Error) -> Finding {
    let advice = match error.kind {
        ErrorKind::Denied => "log in (docker login, podman login) as a user with access, or check the stored credential",
        ErrorKind::NotFound | ErrorKind::Gone => "check the name; some registries also say this when access is denied",
        ErrorKind::Unreachable | ErrorKind::TimedOut => {
            "check the network and TLS: --ca-file for a private CA, --plain-http for a registry without TLS"
        }
        _ => "see the registry's message",
    };
    Finding::failed(step, error.message, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_without_a_port_uses_its_scheme_s_default() {
        for (origin, expected) in [
            ("https://reg.io", "reg.io:443"),
            ("http://reg.io", "reg.io:80"),
            ("http://127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://[::1]", "[::1]:443"),
            ("https://[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(address(origin), expected);
        }
    }
}
