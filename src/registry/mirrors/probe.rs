//! Checks whether each source of a repository answers.

use std::path::PathBuf;

use super::client::{Client, Reaching};
use super::rules::{Authority, Rules};
use crate::error::Error;
use crate::oci::{Registry, Repository};

/// A source other than the registry itself.
#[derive(Debug)]
pub struct Probed {
    /// Its URL.
    pub name: String,
    /// The file that names it.
    pub file: PathBuf,
    /// Whether it answered.
    pub answer: Result<(), Error>,
}

/// The sources of a repository or prefix, in order.
///
/// # Errors
/// Invalid for unusable certificate files or headers.
pub async fn probe(rules: &Rules, registry: &Registry, repository: Option<&Repository>, reaching: &Reaching) -> Result<Vec<Probed>, Error> {
    let mut probed = Vec::new();
    let Some(rule) = rules.rule(repository) else { return Ok(probed) };
    let instead = match &rule.authority {
        Authority::Own(_) => None,
        Authority::Elsewhere(place) => Some(place.as_ref()),
    };
    for place in rule.mirrors.iter().chain(instead) {
        let mut found: Option<Probed> = None;
        for client in Client::of(place, registry, false, reaching)? {
            let answer = client.pull.ping(repository.and_then(|repository| client.repository(repository)).as_ref()).await;
            let (is_well, one) = (answer.is_ok(), Probed { name: client.name, file: rule.file.clone(), answer });
            // A place that may speak TLS or plain HTTP needs to do only one of them.
            if is_well {
                found = Some(one);
                break;
            }
            found = found.or(Some(one));
        }
        probed.extend(found);
    }
    Ok(probed)
}
