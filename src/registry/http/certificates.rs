//! Certificates of one host: an authority of its own, a client certificate, and the directories `certs.d` in which
//! docker and podman keep both (`HOST[:PORT]/*.crt`, `*.cert` with `*.key`).
//!
//! <https://docs.docker.com/engine/security/certificates/>. Files are read once, when a client is built.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};
use zeroize::Zeroizing;

use super::super::Error;
use crate::error::ErrorKind;

/// A client certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, perhaps with its chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What is loaded for one host.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) authorities: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
}

/// Whether one of the directories has something for this host.
pub(super) fn has_own(directories: &[PathBuf], authority: &str) -> bool {
    directories.iter().any(|directory| directory.join(authority).is_dir())
}

/// Loads what the directories hold for a host; the first directory with a client certificate counts.
pub(super) fn from_directories(directories: &[PathBuf], authority: &str) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    for directory in directories.iter().map(|directory| directory.join(authority)) {
        let mut files: Vec<PathBuf> = match fs::read_dir(&directory) {
            Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unusable(&directory, &error)),
        };
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => loaded.authorities.extend(authorities(&file)?),
                Some("cert") if loaded.identity.is_none() => {
                    let key = file.with_extension("key");
                    loaded.identity = Some(identity(&ClientCertificate { certificate: file, key })?);
                }
                _ => {}
            }
        }
    }
    Ok(loaded)
}

/// The certificates of a PEM bundle, at least one.
pub(super) fn authorities(path: &Path) -> Result<Vec<Certificate>, Error> {
    let bytes = fs::read(path).map_err(|error| unusable(path, &error))?;
    let found = Certificate::from_pem_bundle(&bytes).map_err(|_| unusable(path, &"it holds no certificate in PEM form"))?;
    if found.is_empty() { Err(unusable(path, &"it holds no certificate in PEM form")) } else { Ok(found) }
}

/// A client certificate with its key.
pub(super) fn identity(files: &ClientCertificate) -> Result<Identity, Error> {
    let mut pem = Zeroizing::new(fs::read(&files.certificate).map_err(|error| unusable(&files.certificate, &error))?);
    let key = Zeroizing::new(fs::read(&files.key).map_err(|error| unusable(&files.key, &error))?);
    pem.push(b'\n');
    pem.extend_from_slice(&key);
    Identity::from_pem(&pem)
        .map_err(|_| unusable(&files.certificate, &format!("with {} it is no PEM certificate and key", files.key.display())))
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, format!("certificate file {} cannot be used: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_as_docker_keeps_them_and_bad_files_are_named() {
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("reg.io:5000");
        fs::create_dir(&host).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["reg.io".to_owned()]).unwrap();
        fs::write(host.join("ca.crt"), made.cert.pem()).unwrap();
        fs::write(host.join("client.cert"), made.cert.pem()).unwrap();
        fs::write(host.join("client.key"), made.signing_key.serialize_pem()).unwrap();
        fs::write(host.join("README"), "x").unwrap();
        let directories = [root.path().join("none"), root.path().to_owned()];
        let loaded = from_directories(&directories, "reg.io:5000").unwrap();
        assert_eq!((loaded.authorities.len(), loaded.identity.is_some()), (1, true));
        assert!(has_own(&directories, "reg.io:5000") && !has_own(&directories, "reg.io"));
        assert!(from_directories(&directories, "reg.io").unwrap().authorities.is_empty());
        fs::write(host.join("bad.crt"), "garbage").unwrap();
        assert!(from_directories(&directories, "reg.io:5000").err().unwrap().message.contains("bad.crt"));
    }
}
