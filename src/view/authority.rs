//! The source of the artifacts of a mount, as written in references.

use std::fmt;

use crate::oci::Repository;

/// A registry or a layout: the part of a reference before repository, tag and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// A registry, `reg.io`: its repositories follow after a slash.
    Registry(String),
    /// A layout, `oci:/srv/layout`: a single repository without a name.
    Layout(String),
}

impl Authority {
    /// The reference of a repository, or of the whole source.
    pub fn reference(&self, repository: Option<&Repository>) -> String {
        match (self, repository) {
            (Self::Registry(registry), Some(repository)) => format!("{registry}/{repository}"),
            (Self::Registry(name), None) | (Self::Layout(name), _) => name.clone(),
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(name) | Self::Layout(name) => formatter.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_of_a_layout_has_no_name() {
        let repository = Repository::parse("team/app").unwrap();
        assert_eq!(Authority::Registry("reg.io".to_owned()).reference(Some(&repository)), "reg.io/team/app");
        assert_eq!(Authority::Registry("reg.io".to_owned()).reference(None), "reg.io");
        let layout = Authority::Layout("oci:/srv/layout".to_owned());
        assert_eq!((layout.reference(Some(&repository)), layout.to_string()), ("oci:/srv/layout".to_owned(), "oci:/srv/layout".to_owned()));
    }
}
