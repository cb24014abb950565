//! The sockets of a worker, under the names the core and the engine know them by.

use crate::listeners::Listener;
use crate::stream::ClientStream;
use crate::udp;
use crate::upstream::{self, UpstreamStream};
use crate::worker::Worker;
use nodens_core::cache::Cache;
use nodens_core::{ClientAddr, ConnectionId, ListenerId, Path, PathEvent, Transport};
use nodens_runtime::socket::{path_event, tcp_upstream, udp_upstream};
use nodens_runtime::turn::{ConnectionLost, OpenPath};
use nodens_runtime::{Framed, Interest, Io};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::AbortHandle;

/// Everything that is open besides the TCP listeners, which belong to their tasks.
#[derive(Default)]
pub(crate) struct Sockets {
    /// Indexed by [`ListenerId`].
    listeners: Vec<Option<Listener>>,
    /// Indexed by [`Path::slot`].
    paths: Vec<Option<OpenedPath>>,
    connections: HashMap<ConnectionId, (Rc<ClientStream>, AbortHandle)>,
}

struct OpenedPath {
    path: Path,
    socket: PathSocket,
    task: AbortHandle,
}

#[derive(Clone)]
enum PathSocket {
    Udp(Rc<UdpSocket>),
    Tcp(Rc<UpstreamStream>),
}

impl Sockets {
    pub(crate) fn add_listener(&mut self, id: ListenerId, listener: Listener) {
        let index = usize::from(id.0);
        if self.listeners.len() <= index {
            self.listeners.resize_with(index + 1, || None);
        }
        self.listeners[index] = Some(listener);
    }

    pub(crate) fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(usize::from(id.0))?.as_ref()
    }

    /// Closes a listener's socket, unless another has taken its place.
    pub(crate) fn remove_listener(&mut self, id: ListenerId, socket: &Rc<UdpSocket>) {
        if let Some(place) = self.listeners.get_mut(usize::from(id.0)) {
            place.take_if(|listener| Rc::ptr_eq(&listener.socket, socket));
        }
    }

    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().flatten()
    }

    pub(crate) fn add_connection(&mut self, id: ConnectionId, stream: Rc<ClientStream>, task: AbortHandle) {
        self.connections.insert(id, (stream, task));
    }

    /// Whether a client's connection is still open.
    pub(crate) fn holds_connection(&self, id: ConnectionId) -> bool {
        self.connections.contains_key(&id)
    }

    fn add_path(&mut self, opened: OpenedPath) {
        let index = opened.path.slot as usize;
        if self.paths.len() <= index {
            self.paths.resize_with(index + 1, || None);
        }
        if let Some(old) = self.paths[index].replace(opened) {
            old.task.abort();
        }
    }

    fn path(&self, path: Path) -> Option<&PathSocket> {
        let opened = self.paths.get(path.slot as usize)?.as_ref()?;
        (opened.path == path).then_some(&opened.socket)
    }

    /// Whether a path is still open.
    pub(crate) fn holds(&self, path: Path) -> bool {
        self.path(path).is_some()
    }

    /// Drops the socket; the kernel closes it when the task, whose end this is, lets go of its share.
    pub(crate) fn close_path(&mut self, path: Path) {
        if let Some(slot) = self.paths.get_mut(path.slot as usize)
            && let Some(opened) = slot.take_if(|opened| opened.path == path)
        {
            opened.task.abort();
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
        let worker = Rc::clone(self.worker);
        Ok(match transport {
            Transport::Udp => {
                let socket = Rc::new(UdpSocket::from_std(udp_upstream(upstream, source_port)?)?);
                let task = self.worker.spawn(upstream::serve_datagrams(worker, path, Rc::clone(&socket)));
                OpenedPath { path, socket: PathSocket::Udp(socket), task }
            }
            Transport::Tcp => {
                let stream = UpstreamStream::new(TcpStream::from_std(tcp_upstream(upstream)?)?);
                let task = self.worker.spawn(upstream::serve_stream(worker, path, Rc::clone(&stream)));
                OpenedPath { path, socket: PathSocket::Tcp(stream), task }
            }
        })
    }
}

impl<C: Cache + 'static> Io for WorkerIo<'_, C> {
    fn send_datagram(&mut self, client: &ClientAddr, message: &[u8]) {
        let sockets = self.worker.sockets.borrow();
        let listener = sockets.listener(client.listener);
        if listener.is_none_or(|listener| udp::send(&listener.socket, client, message).is_err()) {
            self.worker.vitals.udp_send_failures.add(1);
        }
    }

    fn open_path(&mut self, open: OpenPath) -> Result<(), PathEvent> {
        let opened = self.try_open(open).map_err(|e| path_event(&e))?;
        self.worker.sockets.borrow_mut().add_path(opened);
        Ok(())
    }

    fn send_on_path(&mut self, path: Path, message: Framed<'_>) -> Result<(), PathEvent> {
        match self.worker.sockets.borrow().path(path) {
            Some(PathSocket::Udp(socket)) => upstream::send_datagram(socket, message.message()),
            Some(PathSocket::Tcp(stream)) => stream.send(message.on_stream()),
            None => Err(PathEvent::Closed),
        }
    }

    fn close_path(&mut self, path: Path) {
        self.worker.sockets.borrow_mut().close_path(path);
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
            stream.watch(interest);
        }
    }

    fn close_connection(&mut self, id: ConnectionId) {
        if let Some((_, task)) = self.worker.sockets.borrow_mut().connections.remove(&id) {
            task.abort();
        }
    }
}
