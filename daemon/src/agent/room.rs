//! How many bytes of held frames are kept, of all connections together.
//!
//! The programs bound what one connection may have held; this bounds the sum. What finds no room is dropped: TCP sends it again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Room for so many bytes.
#[derive(Clone, Debug)]
pub(super) struct Room {
    free: Arc<AtomicUsize>,
}

/// A part of the room, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Room,
    bytes: usize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// Takes a part, if there is as much.
    pub(super) fn take(&self, bytes: usize) -> Option<Share> {
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes));
        taken.is_ok().then(|| Share { room: self.clone(), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.free.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_comes_back() {
        let room = Room::new(100);
        let first = room.take(60).expect("free");
        assert!(room.take(41).is_none());
        let second = room.take(40).expect("free");
        assert!(room.take(1).is_none() && room.take(0).is_some());
        drop(first);
        assert!(room.take(60).is_some());
        drop(second);
        assert!(room.take(100).is_some());
    }
}
