//! The values of flags that choose among a few names.

use clap::ValueEnum;

use crate::publish::ArtifactKind;

/// `--verify`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Trust the registry's transport while a blob is still streaming
    #[default]
    Auto,
    /// Verify every blob before its first byte
    Strict,
}

/// `--trust-index`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TrustIndex {
    /// Only indexes that manifests name
    #[default]
    Manifest,
    /// Also those that anyone with push access attached (`ocifs index push`)
    Referrer,
}

/// `--profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// For files of every size
    #[default]
    General,
    /// For many small files, on a read-only mount: opening and reading again what the kernel has cached costs no request
    SmallFiles,
}

/// `--view`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// As the artifact's kind implies
    #[default]
    Merged,
    /// One directory per layer
    Layers,
    /// One file per blob
    Blobs,
}

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Human-readable
    #[default]
    #[value(alias = "table")]
    Text,
    /// JSON with stable keys
    Json,
    /// The same as YAML
    Yaml,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Time, level, message
    Text,
    /// One JSON object per line
    Json,
    /// Level prefixes for journald, no time
    Journal,
}

/// `--as-kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AsKind {
    /// Titled layers, as ORAS reads them
    #[default]
    Files,
    /// A container image
    Image,
    /// One archive in oci-sync's format, encrypted if there is a passphrase
    OciSync,
}

impl From<AsKind> for ArtifactKind {
    fn from(kind: AsKind) -> Self {
        match kind {
            AsKind::Files => Self::Files,
            AsKind::Image => Self::Image,
            AsKind::OciSync => Self::OciSync,
        }
    }
}
