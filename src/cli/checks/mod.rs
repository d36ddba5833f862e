//! The checks of `ocifs doctor`, step by step.
//!
//! - `registry`: a registry, a credential, an artifact
//! - `machine`: FUSE, the cache and the state directory

pub mod machine;
pub mod registry;

use serde::Serialize;

/// Outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Works.
    Ok,
    /// Something not everybody needs is missing.
    Warning,
    /// Does not work.
    Failed,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the step.
    pub step: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// The result, in one line.
    pub found: String,
    /// How to fix it.
    pub advice: Option<String>,
}

impl Finding {
    /// A step that passed.
    pub fn ok(step: &'static str, found: impl Into<String>) -> Self {
        Self { step, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    /// A step whose failure matters only to some.
    pub fn warning(step: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { step, verdict: Verdict::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    /// A step that failed.
    pub fn failed(step: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { step, verdict: Verdict::Failed, found: found.into(), advice: Some(advice.into()) }
    }
}
