//! The buffer that a decompressor fills.

use std::fmt;

/// A buffer to be filled, handed over, read and given back.
#[derive(Clone)]
pub struct Buffer {
    /// Never resized.
    bytes: Vec<u8>,
    end: usize,
}

impl Buffer {
    /// An empty buffer that holds `room` bytes, at least 1. 256 KiB to 1 MiB are best.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { bytes: vec![0; room.max(1)], end: 0 }
    }

    /// One without memory, in place of one that is handed over.
    pub(super) const fn none() -> Self {
        Self { bytes: Vec::new(), end: 0 }
    }

    /// Its content.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(..self.end).unwrap_or_default()
    }

    pub(super) const fn clear(&mut self) {
        self.end = 0;
    }

    /// What is left to be filled.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// The first `count` bytes of the room are filled; gives them.
    pub(super) fn fill(&mut self, count: usize) -> &[u8] {
        let start = self.end;
        self.end = self.end.saturating_add(count).min(self.bytes.len());
        self.bytes.get(start..self.end).unwrap_or_default()
    }

    /// Appends as much as there is room for; gives how much.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let count = room.len().min(bytes.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..count), bytes.get(..count)) {
            room.copy_from_slice(bytes);
        }
        self.fill(count);
        count
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("filled", &self.end).field("room", &(self.bytes.len() - self.end)).finish()
    }
}
