//! Reading a body within bounds: its own length, its time, and what all bodies together may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use tokio::time::timeout;

use super::limits::Limits;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Longer than [`Limits::body_bytes_max`].
    TooLong,
    /// It took longer than it may.
    TooSlow,
    /// All bodies together hold [`Limits::bodies_bytes_max`].
    NoRoom,
    /// The connection ended within the body, or it was no HTTP.
    Broken,
}

/// What all bodies of a listener hold beyond their free share, in bytes.
#[derive(Debug, Default)]
pub(super) struct Held(AtomicUsize);

/// A body, and its share of what may be held. The share is given back when it is dropped.
#[derive(Debug)]
pub(super) struct ReadBody {
    pub(super) bytes: Vec<u8>,
    share: Share,
}

#[derive(Debug)]
struct Share {
    held: Arc<Held>,
    bytes: usize,
}

impl Share {
    /// Makes the share as large as `bytes`, if there is room.
    fn grow(&mut self, bytes: usize, max: usize) -> Result<(), BodyError> {
        let more = bytes.saturating_sub(self.bytes);
        let room = |held: usize| held.checked_add(more).filter(|sum| *sum <= max);
        self.held
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map_err(|_| BodyError::NoRoom)?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads the whole body within `time`.
pub(super) async fn read(
    body: Incoming,
    limits: &Limits,
    held: &Arc<Held>,
    time: Duration,
) -> Result<ReadBody, BodyError> {
    // Whoever says that it is too long need not send it.
    if body.size_hint().lower() > limits.body_bytes_max as u64 {
        return Err(BodyError::TooLong);
    }
    match timeout(time, collect(body, limits, held)).await {
        Ok(result) => result,
        Err(_) => Err(BodyError::TooSlow),
    }
}

async fn collect(mut body: Incoming, limits: &Limits, held: &Arc<Held>) -> Result<ReadBody, BodyError> {
    // No memory for what is only promised.
    let expected = (body.size_hint().lower() as usize).min(limits.body_bytes_free);
    let mut read =
        ReadBody { bytes: Vec::with_capacity(expected), share: Share { held: Arc::clone(held), bytes: 0 } };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        // Trailers say nothing here.
        let Ok(data): Result<Bytes, _> = frame.into_data() else { continue };
        let length = read.bytes.len() + data.len();
        if length > limits.body_bytes_max {
            return Err(BodyError::TooLong);
        }
        if length > read.bytes.capacity() {
            // A vector grows to twice its size: that is what is held, not its length.
            let capacity = (2 * read.bytes.capacity()).clamp(length, limits.body_bytes_max);
            read.share.grow(capacity.saturating_sub(limits.body_bytes_free), limits.bodies_bytes_max)?;
            read.bytes.reserve_exact(capacity - read.bytes.len());
        }
        read.bytes.extend_from_slice(&data);
    }
    Ok(read)
}
