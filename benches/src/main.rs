//! `nodens-bench`: the command line. Each subcommand is a module of the library; this file chooses.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use nodens_benches::args::Args;
use nodens_benches::echo::EchoKind;
use nodens_benches::{echo, load, process, upstream};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
nodens-bench load --target 127.0.0.1:53 [--pid PID]   ask a running server, and say what it took
    --traffic mix|hits|misses   a node's mix (default), cached names, new names; also --hits-only, --misses
    --names N                   how many names hits are of (1000)
    --rate N                    queries per second; without it every lane always has questions out
    --seconds S  --queries N    when to end (3 s)
    --sockets N  --lanes N      source ports (32), stub resolvers on each (4)
    --timeout-ms N              when a query is lost (2000)
    --pid PID                   the server's process: its CPU time per answer, its memory
    --core N                    stay on this core
    --seed N  --echo  --json    repeat a run; the server echoes; one JSON object instead of a table

nodens-bench echo --kind KIND [--seconds S]           an echo program: recvfrom, mmsg, tokio, tokio-uring, multishot
nodens-bench upstream [--port N] [--ttl S] [--seconds S]   the authority that answers from a template
nodens-bench pinned --core N -- PROGRAM ARGUMENTS     become a program on a core, no longer than the parent
";

/// Servers started by hand end by themselves after an hour, should they be forgotten.
const SERVER_SECONDS: u64 = 3600;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let subcommand = words.next().unwrap_or_default();
    let args = Args::new(words);
    let result = match subcommand.as_str() {
        "load" => run_load(args),
        "echo" => run_echo(args),
        "upstream" => run_upstream(args),
        "pinned" => become_pinned(args),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("{other:?} is not a subcommand\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("nodens-bench: {why}");
            ExitCode::from(2)
        }
    }
}

fn run_load(mut args: Args) -> Result<(), String> {
    let (is_json, core) = (args.flag("--json"), args.value("--core")?);
    let plan = load::Plan::from_args(&mut args)?;
    args.finish()?;
    if let Some(core) = core {
        process::pin(core).map_err(|why| format!("--core {core}: {why}"))?;
    }
    let report = load::run(&plan).map_err(|why| why.to_string())?;
    if is_json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(())
}

fn run_echo(mut args: Args) -> Result<(), String> {
    let kind: EchoKind = args.value("--kind")?.ok_or("--kind is needed")?;
    end_after(&mut args)?;
    args.finish()?;
    echo::serve(kind).map_err(|why| format!("{kind}: {why}"))
}

fn run_upstream(mut args: Args) -> Result<(), String> {
    let (port, ttl_s) = (args.value_or("--port", 0)?, args.value_or("--ttl", upstream::TTL_S)?);
    end_after(&mut args)?;
    args.finish()?;
    upstream::serve(port, ttl_s).map_err(|why| format!("the upstream: {why}"))
}

fn become_pinned(mut args: Args) -> Result<(), String> {
    let command = args.rest();
    let core = args.value("--core")?.ok_or("--core is needed")?;
    args.finish()?;
    Err(format!("{}: {}", command.join(" "), process::become_pinned(core, &command)))
}

fn end_after(args: &mut Args) -> Result<(), String> {
    let seconds = args.value_or("--seconds", SERVER_SECONDS)?;
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds));
        std::process::exit(0);
    });
    Ok(())
}
