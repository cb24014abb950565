//! The channel of the models: loom has none that is bounded, or that knows when its other end has gone.

use loom::sync::{Arc, Mutex};
use std::collections::VecDeque;
use std::sync::mpsc::{SendError, TryRecvError};

#[derive(Debug)]
struct Channel<T> {
    values: VecDeque<T>,
    space: usize,
    sender_gone: bool,
    receiver_gone: bool,
}

#[derive(Debug)]
pub(crate) struct SyncSender<T>(Arc<Mutex<Channel<T>>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Mutex<Channel<T>>>);

/// Like `std::sync::mpsc::sync_channel` with one sender that never has to wait: it is a failure of the model if it would.
pub(crate) fn sync_channel<T>(space: usize) -> (SyncSender<T>, Receiver<T>) {
    let channel = Channel { values: VecDeque::new(), space, sender_gone: false, receiver_gone: false };
    let channel = Arc::new(Mutex::new(channel));
    (SyncSender(channel.clone()), Receiver(channel))
}

impl<T> SyncSender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut channel = self.0.lock().expect("loom's locks are not poisoned");
        if channel.receiver_gone {
            return Err(SendError(value));
        }
        assert!(channel.values.len() < channel.space, "a sender that is not meant to wait would wait");
        channel.values.push_back(value);
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut channel = self.0.lock().expect("loom's locks are not poisoned");
        let nothing = if channel.sender_gone { TryRecvError::Disconnected } else { TryRecvError::Empty };
        channel.values.pop_front().ok_or(nothing)
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        self.0.lock().expect("loom's locks are not poisoned").sender_gone = true;
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.lock().expect("loom's locks are not poisoned").receiver_gone = true;
    }
}
