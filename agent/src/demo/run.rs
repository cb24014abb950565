//! The demo from start to Ctrl-C: upstream, service, status line.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use nodens_runtime::listen::{BindError, LOOKS, held_by_others};

use crate::build_config::{self, Environment, ZoneIds};
use crate::cli::DemoOptions;
use crate::corefile::{self, LoadOptions, Source};
use crate::log::Log;
use crate::privilege::Bare;
use crate::run::{Failure, StopSignals, control_runtime, drain};
use crate::runtimes;
use crate::service::Service;

/// Serves until Ctrl-C.
pub fn run(options: &DemoOptions) -> Result<(), Failure> {
    let upstream = super::start()
        .map_err(|error| Failure::Other(format!("cannot start the demo's upstream on 127.0.0.1: {error}")))?;
    let listen = SocketAddr::from(([127, 0, 0, 1], options.port));
    // Two demos on one port would each get a part of the questions, and each show half of what was asked.
    if let Some(held) = held_for_long(listen) {
        return Err(Failure::Other(held.to_string()));
    }
    let environment =
        Environment { workers: options.workers, runtime: options.runtime, ..Environment::of_this_machine() };
    let text = BuiltIn(super::corefile(upstream.addr, listen));
    let corefile = corefile::load("demo", &text, &LoadOptions::default()).map_err(Failure::Corefile)?;
    let built =
        build_config::build(&corefile, &environment, &mut ZoneIds::default()).map_err(Failure::Corefile)?;
    let starter = runtimes::choose(built.plan.runtime).map_err(Failure::Usage)?;
    let listeners = Service::bind(&built.plan)?;
    let service = Service::start(built, listeners, &starter, Bare::default())?;
    if !options.quiet {
        let listen = service.addresses.first().copied().unwrap_or(listen);
        let _ = io::stdout().write_all(format!("{}\n", super::intro(listen)).as_bytes());
    }
    control_runtime()?.block_on(serve(service))
}

/// Whether somebody serves there, who is not just ending.
fn held_for_long(listen: SocketAddr) -> Option<BindError> {
    let (looks, pause) = LOOKS;
    let mut held = held_by_others(&[listen]).pop();
    for _ in 1..looks {
        held.as_ref()?;
        std::thread::sleep(pause);
        held = held_by_others(&[listen]).pop();
    }
    held
}

async fn serve(mut service: Service) -> Result<(), Failure> {
    let mut stop = StopSignals::new()?;
    let mut out = io::stdout();
    let terminal = out.is_terminal();
    let stats = service.figures.stats();
    let died = {
        let over = async {
            let mut look = tokio::time::interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    () = stop.next() => return,
                    _ = look.tick() => {
                        // Nobody reads the demo's log lines; the status line tells enough.
                        service.drain_events(|_| {});
                    }
                }
            }
        };
        // Whoever closed our output does not want the line; Ctrl-C still ends the demo.
        let _ = super::status::show(&stats, &mut out, terminal, over).await;
        service.tend_workers().and_then(Result::err)
    };
    if let Some(failure) = died {
        return Err(Failure::Other(failure.to_string()));
    }
    drain(&mut service, &mut Log::new(io::sink()), &mut stop).await;
    Ok(())
}

/// The demo's Corefile, which imports nothing.
struct BuiltIn(String);

impl Source for BuiltIn {
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}
