//! The task of the datagram ring: waits for it, and takes turns with what it brings.
//!
//! Under load it does not wait: the submit at the end of a turn brings what has arrived during it.

use crate::datagrams::{Arrival, Datagram, Receiver};
use crate::ring::RingError;
use crate::worker::{Failure, Worker};
use nix::libc::ENOBUFS;
use nodens_core::ClientAddr;
use nodens_core::cache::Cache;
use nodens_runtime::Turn;
use nodens_runtime::socket::path_event;
use nodens_runtime::turn::BATCH;
use std::io;
use std::rc::Rc;
use tokio::select;
use tokio::task::yield_now;

/// Serves the datagram ring until the worker ends.
pub(crate) async fn serve<C: Cache + 'static>(worker: Rc<Worker<C>>) {
    if let Err(error) = serve_ring(&worker).await {
        worker.fail(Failure::Ring(RingError::new("wait for the ring", error)));
    }
}

async fn serve_ring<C: Cache + 'static>(worker: &Rc<Worker<C>>) -> io::Result<()> {
    let ring = worker.datagrams.borrow().readiness()?;
    loop {
        if worker.datagrams.borrow().has_arrived() {
            worker.turn(|turn| hand_in(worker, turn));
            if worker.datagrams.borrow().has_arrived() {
                yield_now().await;
            }
        } else if worker.datagrams.borrow().needs_submit() {
            worker.submit();
            yield_now().await;
        } else if worker.datagrams.borrow_mut().may_wait() {
            select! {
                biased;
                ready = ring.readable() => {
                    ready?.clear_ready();
                    worker.datagrams.borrow_mut().collect();
                }
                () = worker.arrived.notified() => {}
            }
        } else {
            yield_now().await;
        }
    }
}

/// Hands a batch of arrivals to the core; answers are queued for the submit at the turn's end.
fn hand_in<C: Cache + 'static>(worker: &Rc<Worker<C>>, turn: &mut Turn<'_, C>) {
    let mut datagrams = worker.datagrams.borrow_mut();
    for _ in 0..BATCH {
        let Some(Arrival { socket, result }) = datagrams.next() else { return };
        match socket {
            Receiver::Listener(place) => {
                let Ok(Some(buffer)) = result else { continue };
                // Without a sender there is nobody to answer.
                if let Some(Datagram { peer: Some(peer), local, message }) =
                    datagrams.datagram(place, &buffer)
                {
                    let id = datagrams.listener(place);
                    let client = ClientAddr { listener: id, peer, local, connection: None };
                    if let Some(answer) = turn.datagram(client, message) {
                        datagrams.send(place, Some(peer), local, answer);
                    }
                }
                datagrams.give_back(buffer);
            }
            Receiver::Path(path) => {
                let is_open = worker.sockets.borrow_mut().has_received(path);
                if is_open {
                    // After the turn; mostly the core has closed the path by then.
                    worker.unarmed.borrow_mut().push(path);
                }
                match result {
                    Ok(buffer) => {
                        if is_open {
                            turn.response(path, datagrams.message(buffer.as_ref()));
                        }
                        buffer.into_iter().for_each(|buffer| datagrams.give_back(buffer));
                    }
                    Err(ENOBUFS) => {}
                    Err(code) if is_open => {
                        turn.path_event(path, path_event(&io::Error::from_raw_os_error(code)));
                    }
                    Err(_) => {}
                }
            }
        }
    }
}
