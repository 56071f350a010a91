//! A whole log held against signed checkpoints.

use std::collections::BTreeMap;

use protocols::digest::Sha256Digest;

use crate::AuditError;
use crate::checkpoint::Checkpoint;
use crate::entry::Entry;
use crate::tree::{Tree, leaf_hash};

/// Takes entries one after another and checks every checkpoint whose place it comes by.
#[derive(Debug, Default)]
pub struct Verifier {
    tree: Tree,
    /// Root by size, of checkpoints still ahead.
    expected: BTreeMap<u64, Sha256Digest>,
}

impl Verifier {
    /// Expects the log to come by this checkpoint. To be called before any entry is taken.
    ///
    /// # Errors
    /// [`AuditError::Fork`] when another one of the same size has another root, or an empty one is not empty.
    pub fn expect(&mut self, checkpoint: &Checkpoint) -> Result<(), AuditError> {
        let fork = AuditError::Fork { older: checkpoint.size, newer: checkpoint.size };
        if checkpoint.size == self.tree.size() {
            return if checkpoint.root == self.tree.root() { Ok(()) } else { Err(fork) };
        }
        match self.expected.insert(checkpoint.size, checkpoint.root) {
            Some(other) if other != checkpoint.root => Err(fork),
            _ => Ok(()),
        }
    }

    /// Takes the next entry's bytes.
    ///
    /// # Errors
    /// [`AuditError::Entry`]; [`AuditError::Root`] when the entries so far are not those that were signed.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Entry, AuditError> {
        let entry = Entry::decode(bytes, self.tree.size())?;
        self.tree.push(leaf_hash(bytes));
        let (size, actual) = (self.tree.size(), self.tree.root());
        match self.expected.remove(&size) {
            Some(expected) if expected != actual => Err(AuditError::Root { size, expected, actual }),
            _ => Ok(entry),
        }
    }

    /// Entries taken.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Entries that the longest expected checkpoint asks for.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.expected.last_key_value().map_or(self.tree.size(), |(size, _)| *size)
    }

    /// Ends: every expected checkpoint was come by.
    ///
    /// # Errors
    /// [`AuditError::Shrunk`] when there were fewer entries than signed.
    pub fn finish(self) -> Result<Tree, AuditError> {
        match self.expected.last_key_value() {
            Some((expected, _)) => Err(AuditError::Shrunk { expected: *expected, actual: self.tree.size() }),
            None => Ok(self.tree),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocols::time::Timestamp;

    use super::*;
    use crate::entry::Event;

    fn log(count: u64) -> Vec<Vec<u8>> {
        let entry = |seq| {
            let event = Event::Release { session: format!("{seq}"), path: "a/b/c".into(), guest: None };
            Entry { seq, time: Timestamp(1000), replica: "0".repeat(16), event }.encode().unwrap()
        };
        (0..count).map(entry).collect()
    }

    fn checkpoint(entries: &[Vec<u8>]) -> Checkpoint {
        let mut tree = Tree::default();
        entries.iter().for_each(|entry| _ = tree.push(leaf_hash(entry)));
        Checkpoint::of(&tree, Timestamp(1000))
    }

    fn verify(entries: &[Vec<u8>], checkpoints: &[Checkpoint]) -> Result<Tree, AuditError> {
        let mut verifier = Verifier::default();
        for checkpoint in checkpoints {
            verifier.expect(checkpoint)?;
        }
        for entry in entries {
            verifier.take(entry)?;
        }
        verifier.finish()
    }

    #[test]
    fn the_log_that_was_signed_is_accepted_at_every_size() {
        let entries = log(20);
        let all: Vec<_> = (0..=20).map(|size| checkpoint(&entries[..size])).collect();
        assert_eq!(verify(&entries, &all).unwrap().size(), 20);
        // Entries after the last checkpoint are not signed yet.
        verify(&entries, &all[..10]).unwrap();
    }

    #[test]
    fn an_edited_deleted_moved_or_added_entry_is_found() {
        let entries = log(20);
        let signed = checkpoint(&entries);
        let edited = |edit: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut entries = entries.clone();
            edit(&mut entries);
            verify(&entries, std::slice::from_ref(&signed)).unwrap_err()
        };
        let other = Entry::decode(&entries[5], 5).map(|mut entry| {
            entry.event = Event::Release { session: "5".into(), path: "a/b/d".into(), guest: None };
            entry.encode().unwrap()
        });
        let other = other.unwrap();
        assert!(matches!(edited(&|entries| entries[5] = other.clone()), AuditError::Root { size: 20, .. }));
        assert!(matches!(edited(&|entries| _ = entries.remove(5)), AuditError::Entry { place: 5, .. }));
        assert!(matches!(edited(&|entries| _ = entries.pop()), AuditError::Shrunk { expected: 20, actual: 19 }));
        assert!(matches!(edited(&|entries| entries.swap(5, 6)), AuditError::Entry { place: 5, .. }));
        // Moved, with their places mended: whoever does that changes bytes.
        let renumber = |bytes: &[u8], from, to| {
            let mut entry = Entry::decode(bytes, from).unwrap();
            entry.seq = to;
            entry.encode().unwrap()
        };
        let moved = edited(&|entries| {
            let (five, six) = (renumber(&entries[5], 5, 6), renumber(&entries[6], 6, 5));
            (entries[5], entries[6]) = (six, five);
        });
        assert!(matches!(moved, AuditError::Root { size: 20, .. }));
    }

    #[test]
    fn two_words_on_one_size_are_a_fork() {
        let entries = log(4);
        let forged = Checkpoint { root: Sha256Digest::of(b"x"), ..checkpoint(&entries) };
        assert_eq!(
            verify(&entries, &[checkpoint(&entries), forged.clone()]).unwrap_err(),
            AuditError::Fork { older: 4, newer: 4 }
        );
        let empty = Checkpoint { size: 0, ..forged };
        assert!(matches!(verify(&entries, &[empty]), Err(AuditError::Fork { .. })));
    }
}
