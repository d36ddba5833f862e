//! `ocifs mount`: plans the mount, then serves it in the foreground or in a background process.
//!
//! Prompts, warnings and errors appear in the launching process; the daemon only sends its failure through the pipe. Checks that may
//! hang, and so need a thread, are left to the daemon.

use std::path::Path;

use crate::cli::daemon::log;
use crate::cli::daemon::mount_point::MountPoint;
use crate::cli::daemon::plan::{MountTarget, Plan};
use crate::cli::daemon::serve::{self, Announce};
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::environment::Environment;
use crate::cli::settings::invocation::Invocation;
pub use crate::cli::settings::mount::Mount;
use crate::cli::settings::passphrases::{self, Origin};
use crate::cli::source::reference;
use crate::cli::terminal::{escape, message, prompt};
use crate::durable;
use crate::seal::Passphrase;
use crate::sys::daemon::{Outcome, Side, split};
use crate::sys::{mount, process};

impl Mount {
    /// Runs the command.
    ///
    /// # Errors
    /// See the exit codes; no mount is left behind.
    pub fn run(mut self, invocation: Invocation) -> Result<(), Failure> {
        // First of all, hide typed secrets from the process list, whatever fails later.
        let origins = invocation.origins(&self.reaching.keys);
        let source = reference::parse(&self.source, &invocation.environment)?;
        self.reaching.storage = self.reaching.storage.with_directories(&invocation.environment)?;
        self.reaching.registry = invocation.registry(reference::registry(&source))?;
        let target = target(&self, &invocation.environment)?;
        let passphrases = passphrases::read_all(&origins)?;
        process::raise_open_file_limit();
        let Invocation { environment, verbose, inherited, .. } = invocation;
        let plan = Plan { flags: self, source, target, passphrases, environment, verbose, inherited }.with_profile()?;
        plan.check_trust()?;
        if plan.flags.check_only {
            plan.mount_point()?;
            return serve::check(&plan);
        }
        if plan.flags.foreground {
            let point = ready_to_serve(&plan)?;
            return serve::serve(plan, point, Announce::Foreground);
        }
        in_background(plan)
    }
}

fn target(flags: &Mount, environment: &Environment) -> Result<MountTarget, Failure> {
    match mount::given_descriptor(&flags.directory) {
        Some(device) => device.map(MountTarget::Given).map_err(|error| Failure::mount(error.message)),
        None => environment.absolute(&flags.directory, None).map(MountTarget::Directory),
    }
}

/// Opens the mount point, then the log, so that a wrong mount point leaves no log behind.
fn ready_to_serve(plan: &Plan) -> Result<Option<MountPoint>, Failure> {
    let point = plan.mount_point()?;
    start_log(plan)?;
    Ok(point)
}

fn start_log(plan: &Plan) -> Result<(), Failure> {
    let target = plan.log_file().map_or(log::LogTarget::Terminal, log::LogTarget::File);
    let shown = match &target {
        log::LogTarget::File(path) => escape::path(path),
        log::LogTarget::Terminal => "standard error".to_owned(),
    };
    let failed = |error| Failure::other(format!("cannot write the log {shown}: {error}; give --log-file or --state-dir"));
    if let (log::LogTarget::File(path), None) = (&target, &plan.flags.log.log_file) {
        for directory in [Some(plan.state_directory()?), path.parent()].into_iter().flatten() {
            durable::private_directory(directory).map_err(failed)?;
        }
    }
    log::start(&target, plan.flags.log.log_format, plan.verbose).map_err(failed)
}

/// Forks and waits for the daemon. If only a key is missing and there is a terminal, asks for it and starts over.
fn in_background(mut plan: Plan) -> Result<(), Failure> {
    loop {
        let side = split().map_err(|error| Failure::other(format!("cannot start a background process: {error}")))?;
        let start = match side {
            Side::Child(readiness) => {
                let announce = Announce::Parent(readiness);
                return match ready_to_serve(&plan) {
                    Ok(point) => serve::serve(plan, point, announce),
                    Err(failure) => announce.failed(failure),
                };
            }
            Side::Parent(start) => start,
        };
        match start.wait().map_err(|error| Failure::other(format!("lost the background process: {error}")))? {
            Outcome::Ready { notes } => {
                notes.lines().for_each(message::report);
                return Ok(());
            }
            Outcome::Failed { code, .. } if code == Code::Key as u8 && plan.passphrases.is_empty() && prompt::can_ask() => {
                plan.passphrases = ask()?;
            }
            Outcome::Failed { code, message } => return Err(Failure::new(Code::of_number(code), message)),
            Outcome::Died => return Err(died(plan.log_file().as_deref())),
        }
    }
}

fn ask() -> Result<Vec<Passphrase>, Failure> {
    passphrases::read_all(&[Origin::Prompt])
}

fn died(log: Option<&Path>) -> Failure {
    let Some(log) = log else { return Failure::other("the background process ended unexpectedly") };
    let last = log::last_lines(log, 1).pop().map(|line| format!(": {line}")).unwrap_or_default();
    Failure::other(format!("the background process ended unexpectedly; its log is {}{last}", escape::path(log)))
}
