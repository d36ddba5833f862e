//! `ocifs manifest get` and `ocifs manifest config`.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use crate::cli::exit::Failure;
use crate::cli::output_file::Destination;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{opened, reference};
use crate::cli::terminal::{escape, output};
use crate::oci::{Descriptor, Manifest, Platform, document};
use crate::transfer;

/// Flags of both commands.
#[derive(Args, Clone, Debug)]
pub struct Get {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Print the descriptor instead: media type, digest and size
    #[arg(long)]
    descriptor: bool,

    /// Indent the JSON; the output no longer matches the digest
    #[arg(long)]
    pretty: bool,

    /// Write to this file; `-` is standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "descriptor")]
    output: Option<PathBuf>,

    /// The member of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Get {
    /// Prints the manifest.
    ///
    /// # Errors
    /// The manifest cannot be read, or its bytes do not match its digest.
    pub fn manifest(self, invocation: &Invocation) -> Result<(), Failure> {
        let manifest = until_interrupted(async { Ok(self.find(invocation).await?.1) })?;
        let descriptor = Descriptor::new(manifest.media_type.clone(), manifest.digest, manifest.raw.len() as u64);
        self.print(&descriptor, &manifest.raw)
    }

    /// Prints the config.
    ///
    /// # Errors
    /// As [`Get::manifest`]; also if the manifest is an index, which has no config.
    pub fn config(self, invocation: &Invocation) -> Result<(), Failure> {
        let (descriptor, raw) = until_interrupted(async {
            let (source, manifest) = self.find(invocation).await?;
            let none = || Failure::usage(format!("{} is an index, which has no config; choose a member with --platform", self.reference));
            let config = manifest.image().ok_or_else(none)?.config.clone();
            if self.descriptor {
                return Ok((config, Bytes::new()));
            }
            let raw = transfer::read_small(&source, &config).await?;
            Ok((config, raw))
        })?;
        self.print(&descriptor, &raw)
    }

    async fn find(&self, invocation: &Invocation) -> Result<(transfer::Source, Manifest), Failure> {
        let (source, pull) = opened::to_read(&self.reference, invocation)?;
        let (repository, version) = reference::named(&source, pull.as_ref()).await?;
        let from = transfer::Source { pull, repository };
        let manifest = from.manifest(&version, self.platform.as_ref()).await?;
        Ok((from, manifest))
    }

    fn print(&self, descriptor: &Descriptor, raw: &[u8]) -> Result<(), Failure> {
        if self.descriptor {
            let value = document::descriptor(descriptor);
            let text = if self.pretty { indented(&value)? } else { document::text(&value) };
            return output::line(&escape::json(&text));
        }
        let mut destination = Destination::new(self.output.as_deref())?;
        if self.pretty {
            let value: Value = serde_json::from_slice(raw).map_err(|error| Failure::other(format!("not valid JSON: {error}")))?;
            destination.write(escape::json(&indented(&value)?).as_bytes())?;
            destination.write(b"\n")?;
        } else if destination.is_terminal() {
            // If it is JSON, the value stays the same; escapes cannot reach the terminal.
            return output::line(&escape::json(&String::from_utf8_lossy(raw)));
        } else {
            destination.write(raw)?;
        }
        destination.finish()
    }
}

fn indented(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::other(error.to_string()))
}
