//! Opens the artifact or repository that a command names, as the flags and the configuration file say. Sends no request.

use std::sync::Arc;

use super::{reference, wiring};
use crate::cli::exit::Failure;
use crate::cli::settings::invocation::Invocation;
use crate::oci::{Source, Tag};
use crate::registry::{Pull, Push};
use crate::transfer::Destination;

/// A source to read, through its mirrors.
///
/// # Errors
/// The text is no reference, or settings conflict.
pub fn to_read(text: &str, invocation: &Invocation) -> Result<(Source, Arc<dyn Pull>), Failure> {
    let source = reference::parse(text, &invocation.environment)?;
    let flags = invocation.registry(reference::registry(&source))?;
    let pull = wiring::readable(&source, &flags, &invocation.environment)?;
    Ok((source, pull))
}

/// A source to change, which must exist.
///
/// # Errors
/// As [`to_read`].
pub fn to_change(text: &str, invocation: &Invocation) -> Result<(Source, Arc<dyn Push>), Failure> {
    let source = reference::parse(text, &invocation.environment)?;
    let flags = invocation.registry(reference::registry(&source))?;
    let push = wiring::registry(&source, false, &flags, &invocation.environment)?;
    Ok((source, push))
}

/// A repository to write to, which may be new, and the tags after the first.
///
/// # Errors
/// As [`to_read`].
pub fn to_write(text: &str, invocation: &Invocation) -> Result<(Source, Vec<Tag>, Destination), Failure> {
    let (text, others) = reference::split_tags(text)?;
    let to = reference::parse(text, &invocation.environment)?;
    let flags = invocation.registry(reference::registry(&to))?;
    let push = wiring::destination(&to, &flags, &invocation.environment)?;
    let repository = reference::repository(&to)?;
    Ok((to, others, Destination { push, repository }))
}
