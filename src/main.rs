//! The program `ocifs`; also `mount.ocifs` when called by that name. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocifs::cli::main()
}
