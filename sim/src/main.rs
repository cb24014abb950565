//! `nodens-sim`: see `nodens_sim::cli`.

fn main() -> std::process::ExitCode {
    nodens_sim::cli::main(std::env::args().skip(1))
}
