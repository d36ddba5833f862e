//! Platforms of an image index and the order in which a host accepts them.

use std::fmt;
use std::str::FromStr;

/// Operating system, architecture and variant, in Go's names (`linux/arm64`, `linux/arm/v7`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// Operating system, e.g. `linux`.
    pub os: String,
    /// Architecture, e.g. `amd64`.
    pub architecture: String,
    /// Variant, e.g. `v7`; empty if none.
    pub variant: String,
}

impl Platform {
    /// The platform this program runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), variant: String::new() }.normalised()
    }

    pub(super) fn from_spec(spec: &oci_spec::image::Platform) -> Self {
        Self {
            os: spec.os().to_string(),
            architecture: spec.architecture().to_string(),
            variant: spec.variant().clone().unwrap_or_default(),
        }
        .normalised()
    }

    /// The platform named in an image config.
    pub fn of_config(config: &[u8]) -> Option<Self> {
        let config: serde_json::Value = serde_json::from_slice(config).ok()?;
        let text = |key: &str| config.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self { os: text("os")?, architecture: text("architecture")?, variant: text("variant").unwrap_or_default() }.normalised())
    }

    fn normalised(mut self) -> Self {
        if self.architecture == "arm64" && self.variant == "v8" {
            self.variant.clear();
        }
        if self.architecture == "amd64" && self.variant == "v1" {
            self.variant.clear();
        }
        if self.architecture == "arm" && self.variant.is_empty() {
            self.variant = "v7".to_owned();
        }
        self
    }

    /// Attestation manifests carry `unknown/unknown`; they are never a platform.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// How well content for `other` runs here: smaller is better, `None` is not at all. A 32-bit ARM host also accepts older variants.
    pub fn rank(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        if self.variant == other.variant {
            return Some(0);
        }
        let (own, theirs) = (variant_number(&self.variant)?, variant_number(&other.variant)?);
        own.checked_sub(theirs)
    }

    /// The name of this platform's directory: `os-arch[-variant]`.
    pub fn path_name(&self) -> String {
        if self.variant.is_empty() {
            format!("{}-{}", self.os, self.architecture)
        } else {
            format!("{}-{}-{}", self.os, self.architecture, self.variant)
        }
    }
}

fn variant_number(variant: &str) -> Option<u32> {
    if variant.is_empty() {
        return Some(1);
    }
    variant.strip_prefix('v')?.parse().ok()
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(formatter, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let named = |part: &&str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match parts.as_slice() {
            [os, architecture, rest @ ..] if rest.len() <= 1 && parts.iter().all(named) => Ok(Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: rest.first().map(|variant| (*variant).to_owned()).unwrap_or_default(),
            }
            .normalised()),
            _ => Err(format!("`{}` is not a platform (os/arch or os/arch/variant)", text.escape_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn an_arm_host_takes_its_own_variant_first_and_older_ones_next() {
        let host = platform("linux/arm/v7");
        assert_eq!(host.rank(&platform("linux/arm/v7")), Some(0));
        assert_eq!(host.rank(&platform("linux/arm/v6")), Some(1));
        assert_eq!(platform("linux/arm/v6").rank(&host), None);
        assert_eq!(host.rank(&platform("linux/arm64")), None);
    }

    #[test]
    fn default_variants_are_left_out() {
        assert_eq!(platform("linux/arm64/v8"), platform("linux/arm64"));
        assert_eq!(platform("linux/amd64/v1").path_name(), "linux-amd64");
        assert_eq!(platform("linux/arm").to_string(), "linux/arm/v7");
    }

    #[test]
    fn text_with_too_few_or_odd_parts_is_refused() {
        for text in ["linux", "linux/", "a/b/c/d", "linux/../x", ""] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
