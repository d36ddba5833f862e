//! `ocifs refresh`: makes daemons revalidate tags and lists.

use std::path::PathBuf;

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::mounts::{self, health};
use crate::cli::settings::flags::StateDirectory;
use crate::cli::settings::invocation::Invocation;
use crate::cli::terminal::escape;
use crate::control::{PATIENCE, Request};
use crate::sys::mountinfo::Mount;

/// Forget cached tags and lists; the next lookup asks the registry
#[derive(Args, Clone, Debug)]
pub struct Refresh {
    /// A mount or a path in it; all mounts if absent
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,

    /// The mount's state directory.
    #[command(flatten)]
    state: StateDirectory,
}

impl Refresh {
    /// Runs the command.
    ///
    /// # Errors
    /// PATH is not in a mount, or a daemon does not answer.
    pub fn run(self, Invocation { environment, .. }: Invocation) -> Result<(), Failure> {
        let state_directory = self.state.or_default(&environment);
        let (found, path) = match &self.path {
            Some(path) => {
                let (mount, rest) = mounts::containing(path, &environment)?;
                let rest = rest.to_string_lossy().into_owned();
                (vec![mount], (!rest.is_empty()).then_some(rest))
            }
            None => {
                // Dead mounts, and those of others, are no reason to fail.
                let client = |mount: &Mount| mounts::client(mount, state_directory.as_deref(), &environment);
                let living = |mount: &Mount| mounts::is_own(mount) && !health::is_gone(&client(mount), mount);
                (mounts::all()?.into_iter().filter(living).collect(), None)
            }
        };
        if found.is_empty() {
            return Err(Failure::mount("nothing is mounted"));
        }
        let ask = |mount: &Mount| {
            let client = mounts::client(mount, state_directory.as_deref(), &environment);
            let asked = client.ask(&Request::Refresh { path: path.clone() }, PATIENCE);
            asked.map(drop).map_err(|error| Failure::from(error).context(escape::path(&mount.mount_point)))
        };
        // In parallel: each daemon answers only once the kernel has dropped its names.
        std::thread::scope(|scope| {
            let asking: Vec<_> = found.iter().map(|mount| scope.spawn(|| ask(mount))).collect();
            asking.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err(Failure::other("interrupted"))))
        })
    }
}
