//! `ocifs doctor`: checks the machine and a registry, and says how to fix what fails.

use clap::Args;
use serde::Serialize;

use crate::cli::checks::{Finding, Verdict, machine, registry};
use crate::cli::exit::{Code, Failure};
use crate::cli::runtime::{blocking, until_interrupted};
use crate::cli::settings::flags::{Format, RegistryFlags, Storage};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{mirrors, reference, wiring};
use crate::cli::terminal::{escape, output, units};

/// Check step by step what works: this machine, a registry, a credential, an artifact
///
/// Nothing is written. To learn whether this user may push, an upload is opened and cancelled.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// A registry, repository or artifact [default: check only this machine]
    #[arg(value_name = "REF")]
    reference: Option<String>,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// The cache and the state directory.
    #[command(flatten)]
    storage: Storage,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// The output. Its keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
}

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// At least one step failed.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let storage = self.storage.clone().with_directories(environment)?;
        let source = self.reference.as_deref().map(|text| reference::parse(text, environment)).transpose()?;
        let findings = until_interrupted(async {
            let mut findings = blocking(move || Ok(machine::check(&storage))).await?;
            if let Some(source) = &source {
                let flags = invocation.registry(reference::registry(source))?;
                let push = wiring::registry(source, false, &flags, environment)?;
                findings.extend(mirrors::probed(source, &flags, environment).await?.into_iter().map(registry::mirror));
                findings.extend(registry::check(source, push.as_ref(), &wiring::credentials(&flags, environment)?).await);
            }
            Ok(findings)
        })?;
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
        output::show(self.format, &Report { findings }, |report| text(&report.findings))?;
        match failed {
            0 => Ok(()),
            _ => Err(Failure::new(Code::Other, format!("{} failed", units::show_count(failed, "step")))),
        }
    }
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.step.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warning => "note",
            Verdict::Failed => "FAIL",
        };
        lines.push(format!("{mark}  {:width$}  {}", finding.step, escape::one_line(&finding.found)));
        lines.extend(finding.advice.as_ref().map(|advice| format!("      {:width$}  -> {advice}", "")));
    }
    lines.join("\n")
}
