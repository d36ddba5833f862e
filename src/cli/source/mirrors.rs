//! The mirrors of a registry: finds the files of containerd and podman and applies their rules.
//!
//! Read when a command or mount starts. As root, files in another user's home directory are ignored, and a file elsewhere that belongs to
//! another user is an error.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::exit::Failure;
use crate::cli::settings::environment::{self, Environment};
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::source::access;
use crate::oci::{Registry, Repository, Source};
use crate::registry::{ClientCertificate, HttpConfig, MirrorFiles, Mirrored, Probed, Pull, Push, Reaching, Rules, probe};

/// The rules of the files for a registry; none with `--no-mirrors`.
///
/// # Errors
/// A file is broken or belongs to another user.
pub fn rules(registry: &Registry, flags: &RegistryFlags, environment: &Environment) -> Result<Arc<Rules>, Failure> {
    if flags.transport.no_mirrors {
        return Ok(Arc::default());
    }
    let rules = files(environment)?.rules(registry);
    Ok(Arc::new(rules.map_err(|error| Failure::from(error.append("; --no-mirrors ignores these files")))?))
}

/// An open registry, read through the mirrors of its rules. A layout has none.
///
/// # Errors
/// The credentials file named by the user cannot be read, or a mirror's certificates cannot be used.
pub fn over(
    push: Arc<dyn Push>,
    source: &Source,
    rules: Arc<Rules>,
    flags: &RegistryFlags,
    environment: &Environment,
) -> Result<Arc<dyn Pull>, Failure> {
    let Some((registry, _)) = source.place().filter(|_| rules.redirects()) else { return Ok(push) };
    Ok(Mirrored::over(push, registry, rules, &reaching(flags, environment)?)?)
}

/// The hosts a source is read from, and whether they answer.
///
/// # Errors
/// As [`rules`] and [`over`].
pub async fn probed(source: &Source, flags: &RegistryFlags, environment: &Environment) -> Result<Vec<Probed>, Failure> {
    let Some((registry, repository)) = source.place() else { return Ok(Vec::new()) };
    let rules = rules(registry, flags, environment)?;
    Ok(probe(&rules, registry, repository, &reaching(flags, environment)?).await?)
}

/// How mirrors are reached: with their stored credentials, never with one from the command line.
///
/// # Errors
/// The credentials file named by the user cannot be read.
fn reaching(flags: &RegistryFlags, environment: &Environment) -> Result<Reaching, Failure> {
    Ok(Reaching {
        credentials: Arc::new(access::stored_credentials(flags, environment)?),
        certificates: access::certificate_directories(environment),
        timing: access::timing(flags),
    })
}

/// The registry with the settings of the rules, which flags override.
pub fn with_rules(mut config: HttpConfig, rules: Arc<Rules>, repository: Option<&Repository>) -> HttpConfig {
    let own = rules.own(repository);
    config.plain_http = config.plain_http.or(own.plain_http);
    config.tls.insecure |= own.insecure;
    config.tls.authorities = own.authorities;
    let client = own.client.map(|(certificate, key)| ClientCertificate { certificate, key });
    config.tls.client = config.tls.client.or(client);
    config.headers.extend(own.headers);
    config.timing.connect = own.connect.unwrap_or(config.timing.connect);
    HttpConfig { rules, ..config }
}

/// The locations that containerd, nerdctl and podman search.
fn files(environment: &Environment) -> Result<MirrorFiles, Failure> {
    let named = environment::variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
    let named = named.map(|path| environment.absolute(&path, None)).transpose()?;
    Ok(MirrorFiles { is_named: named.is_some(), ..usual(environment, named) })
}

fn usual(environment: &Environment, named: Option<PathBuf>) -> MirrorFiles {
    let home = environment.own_configuration_home();
    let of_user = |name: &str| home.as_ref().map(|home| home.join(name));
    let registries = named.or_else(|| of_user("containers/registries.conf").filter(|path| path.exists()));
    let hosts = ["containerd/certs.d", "docker/certs.d"];
    MirrorFiles {
        hosts: hosts.iter().filter_map(|name| of_user(name)).chain(hosts.iter().map(|name| PathBuf::from("/etc").join(name))).collect(),
        registries: Some(registries.unwrap_or_else(|| PathBuf::from("/etc/containers/registries.conf"))),
        is_named: false,
        drop_ins: [Some(PathBuf::from("/etc/containers/registries.conf.d")), of_user("containers/registries.conf.d")]
            .into_iter()
            .flatten()
            .collect(),
        only_of_root: environment.root,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_files_override_those_of_the_system() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment { config_home: Some(home.path().to_owned()), ..Environment::default() };
        let files = usual(&environment, None);
        assert_eq!(files.registries, Some("/etc/containers/registries.conf".into()));
        let hosts = [home.path().join("containerd/certs.d"), home.path().join("docker/certs.d")];
        assert_eq!(files.hosts[..2], hosts);
        assert_eq!(files.hosts[2..], ["/etc/containerd/certs.d", "/etc/docker/certs.d"].map(PathBuf::from));
        std::fs::create_dir(home.path().join("containers")).unwrap();
        let own = home.path().join("containers/registries.conf");
        std::fs::write(&own, "").unwrap();
        assert_eq!(usual(&environment, None).registries, Some(own));
        assert_eq!(usual(&environment, Some("/named".into())).registries, Some("/named".into()));
    }

    #[test]
    fn root_does_not_look_into_the_home_of_another_user() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment { root: true, config_home: Some(home.path().to_owned()), ..Environment::default() };
        if std::os::unix::fs::chown(home.path(), Some(1234), None).is_err() && crate::sys::process::effective_uid() == 0 {
            panic!("root may give a directory away");
        }
        let files = usual(&environment, None);
        assert!(files.only_of_root && files.hosts.iter().chain(&files.drop_ins).all(|path| path.starts_with("/etc")), "{files:?}");
    }
}
