//! The sockets of a worker, under the names the core and the engine know them by.

use crate::datagrams::Datagrams;
use crate::listeners::Listener;
use crate::stream::ClientStream;
use crate::upstream::{self, UpstreamStream};
use crate::worker::Worker;
use nodens_core::cache::Cache;
use nodens_core::{ClientAddr, ConnectionId, Path, PathEvent, Transport};
use nodens_runtime::socket::{path_event, send_now, tcp_upstream, udp_upstream};
use nodens_runtime::turn::{ConnectionLost, OpenPath};
use nodens_runtime::{Framed, Interest, Io};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::rc::Rc;
use tokio::task::AbortHandle;

/// Everything that is open.
#[derive(Default)]
pub(crate) struct Sockets {
    pub(crate) listeners: Vec<Listener>,
    /// Indexed by [`Path::slot`].
    paths: Vec<Option<OpenedPath>>,
    connections: HashMap<ConnectionId, (Rc<ClientStream>, AbortHandle)>,
}

struct OpenedPath {
    path: Path,
    socket: PathSocket,
}

enum PathSocket {
    /// A datagram socket, and whether the ring has a receive for it.
    Udp(UdpSocket, bool),
    Tcp(Rc<UpstreamStream>, AbortHandle),
}

impl Sockets {
    pub(crate) fn add_connection(&mut self, id: ConnectionId, stream: Rc<ClientStream>, task: AbortHandle) {
        self.connections.insert(id, (stream, task));
    }

    /// Whether a client's connection is still open.
    pub(crate) fn holds_connection(&self, id: ConnectionId) -> bool {
        self.connections.contains_key(&id)
    }

    /// Whether a path is still open.
    pub(crate) fn holds(&self, path: Path) -> bool {
        self.path(path).is_some()
    }

    /// Notes that the receive of a path has ended. Returns whether the path is open.
    pub(crate) fn has_received(&mut self, path: Path) -> bool {
        match self.path_mut(path) {
            Some(PathSocket::Udp(_, armed)) => {
                *armed = false;
                true
            }
            _ => false,
        }
    }

    /// Lets the paths receive; those for which there was no room stay.
    pub(crate) fn arm(&mut self, paths: &mut Vec<Path>, datagrams: &mut Datagrams) {
        paths.retain(|path| match self.path_mut(*path) {
            Some(PathSocket::Udp(socket, armed)) => {
                *armed = *armed || datagrams.receive(*path, socket);
                !*armed
            }
            _ => false,
        });
    }

    /// Closes a path, if it is still open.
    pub(crate) fn close_path(&mut self, path: Path, datagrams: &mut Datagrams) {
        let Some(slot) = self.paths.get_mut(path.slot as usize) else { return };
        if let Some(opened) = slot.take_if(|opened| opened.path == path) {
            opened.close(datagrams);
        }
    }

    /// Closes everything at once; after a ring has failed, when tasks cannot be relied on any more.
    pub(crate) fn abandon(&mut self) {
        self.listeners.drain(..).for_each(|listener| listener.abandon());
        for (stream, task) in self.connections.drain().map(|(_, connection)| connection) {
            task.abort();
            stream.shut();
        }
        for opened in self.paths.drain(..).flatten() {
            if let PathSocket::Tcp(stream, task) = opened.socket {
                task.abort();
                stream.shut();
            }
        }
    }

    fn add_path(&mut self, opened: OpenedPath, datagrams: &mut Datagrams) {
        let index = opened.path.slot as usize;
        if self.paths.len() <= index {
            self.paths.resize_with(index + 1, || None);
        }
        if let Some(old) = self.paths[index].replace(opened) {
            old.close(datagrams);
        }
    }

    fn path(&self, path: Path) -> Option<&PathSocket> {
        let opened = self.paths.get(path.slot as usize)?.as_ref()?;
        (opened.path == path).then_some(&opened.socket)
    }

    fn path_mut(&mut self, path: Path) -> Option<&mut PathSocket> {
        let opened = self.paths.get_mut(path.slot as usize)?.as_mut()?;
        (opened.path == path).then_some(&mut opened.socket)
    }
}

impl OpenedPath {
    fn close(self, datagrams: &mut Datagrams) {
        match self.socket {
            PathSocket::Udp(socket, armed) => datagrams.close_path(self.path, socket, armed),
            PathSocket::Tcp(stream, task) => {
                task.abort();
                stream.shut();
            }
        }
    }
}

/// The sockets as the engine uses them during a turn.
pub(crate) struct WorkerIo<'w, C> {
    pub(crate) worker: &'w Rc<Worker<C>>,
}

impl<C: Cache + 'static> WorkerIo<'_, C> {
    fn try_open(&self, open: OpenPath) -> io::Result<OpenedPath> {
        let OpenPath { path, transport, upstream, source_port } = open;
        let socket = match transport {
            Transport::Udp => {
                let socket = udp_upstream(upstream, source_port)?;
                self.worker.unarmed.borrow_mut().push(path);
                PathSocket::Udp(socket, false)
            }
            Transport::Tcp => {
                let stream = UpstreamStream::new(tcp_upstream(upstream)?)?;
                let task = upstream::serve_stream(Rc::clone(self.worker), path, Rc::clone(&stream));
                PathSocket::Tcp(stream, self.worker.spawn(task))
            }
        };
        Ok(OpenedPath { path, socket })
    }
}

impl<C: Cache + 'static> Io for WorkerIo<'_, C> {
    fn send_datagram(&mut self, client: &ClientAddr, message: &[u8]) {
        let sockets = self.worker.sockets.borrow();
        // The newest, if an address came back while its last answers were leaving.
        match sockets.listeners.iter().rfind(|listener| listener.id == client.listener) {
            Some(listener) => {
                let mut datagrams = self.worker.datagrams.borrow_mut();
                datagrams.send(listener.place, Some(client.peer), client.local, message);
            }
            None => self.worker.vitals.udp_send_failures.add(1),
        }
    }

    fn open_path(&mut self, open: OpenPath) -> Result<(), PathEvent> {
        let opened = self.try_open(open).map_err(|e| path_event(&e))?;
        self.worker.sockets.borrow_mut().add_path(opened, &mut self.worker.datagrams.borrow_mut());
        Ok(())
    }

    fn send_on_path(&mut self, path: Path, message: Framed<'_>) -> Result<(), PathEvent> {
        match self.worker.sockets.borrow().path(path) {
            Some(PathSocket::Udp(socket, _)) => match send_now(socket, message.message()) {
                Ok(_) => Ok(()),
                // Lost, as on any network; the core will repeat it.
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
                Err(e) => Err(path_event(&e)),
            },
            Some(PathSocket::Tcp(stream, _)) => stream.send(self.worker, message.on_stream()),
            None => Err(PathEvent::Closed),
        }
    }

    fn close_path(&mut self, path: Path) {
        self.worker.sockets.borrow_mut().close_path(path, &mut self.worker.datagrams.borrow_mut());
    }

    fn write_connection(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<usize, ConnectionLost> {
        match self.worker.sockets.borrow().connections.get(&id).map(|(stream, _)| stream.write(bytes)) {
            Some(Ok(len)) => Ok(len),
            Some(Err(e)) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            Some(Err(_)) | None => Err(ConnectionLost),
        }
    }

    fn watch_connection(&mut self, id: ConnectionId, interest: Interest) {
        if let Some((stream, _)) = self.worker.sockets.borrow().connections.get(&id) {
            stream.watch(self.worker, id, interest);
        }
    }

    fn close_connection(&mut self, id: ConnectionId) {
        if let Some((stream, task)) = self.worker.sockets.borrow_mut().connections.remove(&id) {
            task.abort();
            stream.shut();
        }
    }
}
