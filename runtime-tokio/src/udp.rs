//! Clients' datagrams: receive, ask the core, send. An answer from the cache costs two system calls and no allocation.

use crate::worker::Worker;
use nodens_core::cache::Cache;
use nodens_core::config::UDP_SIZE_MAX;
use nodens_core::{ClientAddr, ListenerId};
use nodens_runtime::packet_info::{self, Control};
use nodens_runtime::turn::BATCH;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::yield_now;

/// Serves a socket that is bound to one address.
pub(crate) async fn serve<C: Cache + 'static>(
    worker: Rc<Worker<C>>,
    listener: ListenerId,
    socket: Rc<UdpSocket>,
) {
    let receive = |buffer: &mut [u8]| {
        let (len, peer) = socket.try_recv_from(buffer)?;
        Ok((len, ClientAddr { listener, peer, local: None, connection: None }))
    };
    serve_with(&worker, &socket, receive).await;
}

/// Serves a socket that is bound to all addresses.
pub(crate) async fn serve_wildcard<C: Cache + 'static>(
    worker: Rc<Worker<C>>,
    listener: ListenerId,
    socket: Rc<UdpSocket>,
) {
    let mut control = Control::default();
    let receive = |buffer: &mut [u8]| {
        let datagram =
            socket.try_io(Interest::READABLE, || packet_info::receive(&*socket, buffer, &mut control))?;
        let client = ClientAddr { listener, peer: datagram.peer, local: datagram.local, connection: None };
        Ok((datagram.len, client))
    };
    serve_with(&worker, &socket, receive).await;
}

/// Sends an answer from the address that was asked.
pub(crate) fn send(socket: &UdpSocket, client: &ClientAddr, message: &[u8]) -> io::Result<usize> {
    match client.local {
        None => socket.try_send_to(message, client.peer),
        Some(local) => {
            socket.try_io(Interest::WRITABLE, || packet_info::send(socket, message, client.peer, local))
        }
    }
}

async fn serve_with<C: Cache + 'static>(
    worker: &Rc<Worker<C>>,
    socket: &UdpSocket,
    mut receive: impl FnMut(&mut [u8]) -> io::Result<(usize, ClientAddr)>,
) {
    let mut buffer = [0; UDP_SIZE_MAX as usize];
    // An error here means that the runtime is being taken down.
    while socket.readable().await.is_ok() {
        let emptied = worker.turn(|turn| {
            for _ in 0..BATCH {
                match receive(&mut buffer) {
                    Ok((len, client)) => {
                        if let Some(answer) = turn.datagram(client, &buffer[..len])
                            && send(socket, &client, answer).is_err()
                        {
                            worker.vitals.udp_send_failures.add(1);
                        }
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                    // An ICMP error of an earlier answer; reading it has cleared it.
                    Err(_) => {}
                }
            }
            false
        });
        if !emptied {
            yield_now().await;
        }
    }
}
