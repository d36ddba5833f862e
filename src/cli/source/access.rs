//! How a registry is reached: credentials, certificates, time limits. Sends no request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::exit::Failure;
use crate::cli::settings::environment::{self, Environment};
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::oci_sync::OciSync;
use crate::cli::terminal::escape;
use crate::oci::Registry;
use crate::registry::{ClientCertificate, CredentialStore, Credentials, HttpConfig, Timing, Tls, WebFiles};

/// Default limit for a transfer without progress.
pub const IO_TIMEOUT: Duration = Duration::from_secs(60);

/// How a registry is reached with these credentials.
pub fn http_with(registry: Registry, flags: &RegistryFlags, environment: &Environment, credentials: Credentials) -> HttpConfig {
    let connection = &flags.connection;
    let client = match (&connection.cert_file, &connection.key_file) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    // A certificate flag implies TLS, even on this machine.
    let means_tls = connection.insecure || connection.ca_file.is_some() || client.is_some();
    HttpConfig {
        plain_http: connection.plain_http.or(means_tls.then_some(false)),
        tls: Tls {
            insecure: connection.insecure,
            ca_file: connection.ca_file.clone(),
            client,
            directories: certificate_directories(environment),
            ..Tls::default()
        },
        credentials: Arc::new(credentials),
        trusted_realms: connection.trusted_realms.clone(),
        headers: connection.headers.clone(),
        addresses: connection.addresses.clone(),
        timing: timing(flags),
        ..HttpConfig::new(registry)
    }
}

/// How files on web servers are reached: with the trusted CAs, without credentials.
pub fn web_files(flags: &RegistryFlags, environment: &Environment) -> WebFiles {
    let tls = Tls { ca_file: flags.connection.ca_file.clone(), directories: certificate_directories(environment), ..Tls::default() };
    WebFiles::new(tls, timing(flags))
}

/// Time limits of a registry.
pub fn timing(flags: &RegistryFlags) -> Timing {
    Timing { progress: flags.transport.io_timeout.unwrap_or(IO_TIMEOUT), ..Timing::default() }
}

/// The file to store a login in: the one named, else that of REGISTRY_AUTH_FILE, else docker's.
///
/// # Errors
/// None of these is known.
pub fn credential_store(flags: &RegistryFlags, environment: &Environment) -> Result<CredentialStore, Failure> {
    let file = credential_files(flags, environment).into_iter().next();
    let file = file.ok_or_else(|| Failure::usage("HOME is not set in the environment; give --registry-config"))?;
    Ok(CredentialStore::new(file, helper_directories()))
}

/// Where credentials are looked up.
///
/// # Errors
/// The oci-sync file named by the user cannot be read.
pub fn credentials(flags: &RegistryFlags, environment: &Environment) -> Result<Credentials, Failure> {
    if let Some(credential) = flags.login.credential.clone() {
        return Ok(Credentials::only(credential));
    }
    stored_credentials(flags, environment)
}

/// The same without the credential of the command line.
///
/// # Errors
/// As [`credentials`].
pub fn stored_credentials(flags: &RegistryFlags, environment: &Environment) -> Result<Credentials, Failure> {
    let found = Credentials::new(credential_files(flags, environment), helper_directories());
    if flags.transport.registry_config.is_some() {
        return Ok(found);
    }
    let file = OciSync::load(environment)?;
    let logins = file.auths.into_iter().map(|(host, login)| (host, login.username, login.password));
    Ok(found.with_logins(&file.path, logins))
}

/// The directories where docker and podman keep per-registry certificates.
pub fn certificate_directories(environment: &Environment) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Some(home) = environment.config_home.clone().or_else(|| Some(environment.home.as_ref()?.join(".config"))) {
        directories.extend(["containers/certs.d", "docker/certs.d"].map(|name| home.join(name)));
    }
    directories.extend(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from));
    directories
}

/// Checks the credentials file named by the user. Files in default places may be missing.
///
/// # Errors
/// It cannot be read or is not JSON.
pub fn check_named_credentials(flags: &RegistryFlags) -> Result<(), Failure> {
    let Some(file) = &flags.transport.registry_config else { return Ok(()) };
    let unusable = |why: &dyn std::fmt::Display| {
        let shown = escape::path(file);
        Failure::usage(format!("cannot use the credentials file {shown}: {why}; check --registry-config"))
    };
    let text = std::fs::read(file).map_err(|error| unusable(&error))?;
    if text.trim_ascii().is_empty() {
        return Ok(());
    }
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|_| unusable(&"not JSON"))?;
    if value.is_object() { Ok(()) } else { Err(unusable(&"not a JSON object")) }
}

/// Credentials files by priority. A file named by the user is the only one.
fn credential_files(flags: &RegistryFlags, environment: &Environment) -> Vec<PathBuf> {
    if let Some(file) = &flags.transport.registry_config {
        return vec![file.clone()];
    }
    let absolute = |path: PathBuf| std::path::absolute(path).ok();
    let mut files: Vec<PathBuf> = Vec::new();
    files.extend(environment::variable("REGISTRY_AUTH_FILE").map(PathBuf::from).and_then(absolute));
    match environment::variable("DOCKER_CONFIG") {
        Some(directory) => files.extend(absolute(PathBuf::from(directory).join("config.json"))),
        None => files.extend(environment.home.as_ref().map(|home| home.join(".docker/config.json"))),
    }
    files.extend(environment.runtime_directory.as_ref().map(|directory| directory.join("containers/auth.json")));
    files.extend(environment.configuration_home().map(|directory| directory.join("containers/auth.json")));
    files
}

/// Directories of credential helpers. A service manager may start us without PATH.
fn helper_directories() -> Vec<PathBuf> {
    match environment::variable("PATH") {
        Some(path) => std::env::split_paths(&path).filter(|directory| directory.is_absolute()).collect(),
        None => ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::flags::Connection;

    #[test]
    fn certificates_imply_tls_on_localhost_too() {
        let registry = Registry::parse("localhost:5000").unwrap();
        let environment = Environment::default();
        let plain = |connection: Connection| {
            let flags = RegistryFlags { connection, ..RegistryFlags::default() };
            http_with(registry.clone(), &flags, &environment, Credentials::none()).plain_http
        };
        assert_eq!(plain(Connection::default()), None);
        assert_eq!(plain(Connection { ca_file: Some("/ca.pem".into()), ..Connection::default() }), Some(false));
        assert_eq!(plain(Connection { plain_http: Some(false), ..Connection::default() }), Some(false));
    }

    #[test]
    fn a_named_credentials_file_is_the_only_one() {
        let environment = Environment { home: Some("/h".into()), runtime_directory: Some("/r".into()), ..Environment::default() };
        let mut named = RegistryFlags::default();
        named.transport.registry_config = Some("/auth.json".into());
        assert_eq!(credential_files(&named, &environment), [PathBuf::from("/auth.json")]);
        let usual = credential_files(&RegistryFlags::default(), &environment);
        assert!(usual.ends_with(&["/r/containers/auth.json".into(), "/h/.config/containers/auth.json".into()]));
    }
}
