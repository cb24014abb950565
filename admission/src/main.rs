//! nodens-admission: the admission server that gives Pods node-local DNS, and the operator's tools around it.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodens_admission::cli::main(std::env::args_os().skip(1))
}
