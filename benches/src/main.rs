//! `nodens-bench`: the command line. Each subcommand is a module of the library; this file chooses.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use nodens_benches::args::Args;
use nodens_benches::echo::EchoKind;
use nodens_benches::floor::{self, Settings};
use nodens_benches::{echo, load, peers, process, results, upstream};
use std::path::Path;
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

nodens-bench floor                                    what echo programs cost: the floor of a socket server
nodens-bench peers                                    nodens, unbound, dnsdist and node-cache beside the floor
    --nodens PATH               the nodens to measure (target/release/nodens)
    --only TEXT                 of the peers, those whose name contains TEXT
    --rounds N  --seconds S     how often each takes its turn (3), how long it lasts (2)
    --write FOLDER              put tables and plot into FOLDER/RESULTS.md and FOLDER/results.svg
  Environment: NODE_CACHE_BIN, the path of a node-cache (or coredns) binary to compare with.

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
        "floor" => run_bench(args, false),
        "peers" => run_bench(args, true),
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

fn run_bench(mut args: Args, with_peers: bool) -> Result<(), String> {
    let rounds = args.value_or("--rounds", floor::ROUNDS)?;
    let seconds = args.value_or("--seconds", floor::SECONDS)?;
    let write: Option<String> = args.value("--write")?;
    let mut found = vec![];
    if with_peers {
        let nodens = args.value_or("--nodens", "target/release/nodens".to_string())?;
        let only = args.value_or("--only", String::new())?;
        found = peers::find(&nodens, std::env::var("NODE_CACHE_BIN").ok().as_deref());
        found.retain(|peer| peer.name().contains(&only));
    }
    args.finish()?;
    let rows = peers::run(&found, &Settings::new(rounds, seconds)).map_err(|why| why.to_string())?;
    let section = format!(
        "Machine: {}.\n\n`nodens-bench {}`, {rounds} rounds of {seconds} s; medians of all rounds.\n{}",
        results::machine(),
        if with_peers { "peers" } else { "floor" },
        results::tables(&rows)
    );
    println!("\n{section}");
    match write {
        Some(folder) => write_results(Path::new(&folder), with_peers, &section, &results::plot(&rows)),
        None => Ok(()),
    }
}

fn write_results(folder: &Path, with_peers: bool, section: &str, plot: &str) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let (page, name) = (folder.join("RESULTS.md"), if with_peers { "peers" } else { "floor" });
    let old = std::fs::read_to_string(&page).unwrap_or_else(|_| "# Results\n".to_string());
    let mut section = section.to_string();
    if with_peers {
        section.push_str("\n![CPU time per answered query](results.svg)\n");
        std::fs::write(folder.join("results.svg"), plot).map_err(|why| format!("results.svg: {why}"))?;
    }
    std::fs::write(&page, results::put_section(&old, name, &section))
        .map_err(|why| format!("{}: {why}", page.display()))
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
