//! Certificates of one host: a private CA, a client certificate, and the `certs.d` directories in which docker and podman keep both
//! (`HOST[:PORT]/*.crt`, `*.cert` with `*.key`).
//!
//! <https://docs.docker.com/engine/security/certificates/>. Files are read once, when a client is built.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};

/// A client certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, optionally with its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The certificates loaded for one host.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) authorities: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
}

/// The hosts with files in the directories. A host named by a registry is compared with these, so that its name never becomes part of a
/// path.
pub(super) fn hosts(directories: &[PathBuf]) -> Result<HashSet<String>, Error> {
    let mut hosts = HashSet::new();
    for directory in directories {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unusable(directory, &error)),
        };
        hosts.extend(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
    }
    Ok(hosts)
}

/// Loads a host's files from the directories; the first directory with a client certificate wins. Without `identified`, loads only CAs.
pub(super) fn from_directories(directories: &[PathBuf], authority: &str, identified: bool) -> Result<Loaded, Error> {
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
                Some("cert") if identified && loaded.identity.is_none() => {
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
    let found = Certificate::from_pem_bundle(&bytes).map_err(|_| unusable(path, &"it contains no PEM certificate"))?;
    if found.is_empty() { Err(unusable(path, &"it contains no PEM certificate")) } else { Ok(found) }
}

/// Loads a client certificate with its key.
pub(super) fn identity(files: &ClientCertificate) -> Result<Identity, Error> {
    let mut pem = Zeroizing::new(fs::read(&files.certificate).map_err(|error| unusable(&files.certificate, &error))?);
    // Both may be in one file.
    if files.key != files.certificate {
        let key = Zeroizing::new(fs::read(&files.key).map_err(|error| unusable(&files.key, &error))?);
        pem.push(b'\n');
        pem.extend_from_slice(&key);
    }
    Identity::from_pem(&pem)
        .map_err(|_| unusable(&files.certificate, &format!("it and {} are not a PEM certificate and key", files.key.display())))
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
        let loaded = from_directories(&directories, "reg.io:5000", true).unwrap();
        assert_eq!((loaded.authorities.len(), loaded.identity.is_some()), (1, true));
        let loaded = from_directories(&directories, "reg.io:5000", false).unwrap();
        assert_eq!((loaded.authorities.len(), loaded.identity.is_some()), (1, false));
        assert_eq!(hosts(&directories).unwrap(), HashSet::from(["reg.io:5000".to_owned()]));
        assert!(from_directories(&directories, "reg.io", true).unwrap().authorities.is_empty());
        fs::write(host.join("bad.crt"), "garbage").unwrap();
        assert!(from_directories(&directories, "reg.io:5000", true).err().unwrap().message.contains("bad.crt"));
    }
}
