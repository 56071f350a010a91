//! The tree over entries: its right edge, with which it grows, and where a store keeps the hashes of what is complete.

use protocols::digest::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::AuditError;

/// Hash of a leaf: SHA-256 over 0x00 and the entry's bytes (RFC 9162, section 2.1.1).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Sha256Digest {
    Sha256Digest::of_parts(&[&[0], entry])
}

/// Hash of an inner node: SHA-256 over 0x01, left and right.
pub(crate) fn node_hash(left: &Sha256Digest, right: &Sha256Digest) -> Sha256Digest {
    Sha256Digest::of_parts(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// Hash over neighbouring subtrees, the leftmost and largest first; `None` where there are none.
pub(crate) fn fold(subtrees: &[Sha256Digest]) -> Option<Sha256Digest> {
    let (last, larger) = subtrees.split_last()?;
    Some(larger.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// A tree by its size and right edge: one complete subtree for each bit of the size, the largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Tree {
    size: u64,
    edge: Vec<Sha256Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    size: u64,
    edge: Vec<Sha256Digest>,
}

impl From<Tree> for Parts {
    fn from(Tree { size, edge }: Tree) -> Self {
        Self { size, edge }
    }
}

impl TryFrom<Parts> for Tree {
    type Error = AuditError;

    fn try_from(Parts { size, edge }: Parts) -> Result<Self, AuditError> {
        if usize::try_from(size.count_ones()) == Ok(edge.len()) {
            return Ok(Self { size, edge });
        }
        Err(AuditError::Tree(size))
    }
}

impl Tree {
    /// Entries in it.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The Merkle tree hash; of an empty tree SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> Sha256Digest {
        fold(&self.edge).unwrap_or_else(|| Sha256Digest::of(&[]))
    }

    /// Adds a leaf. Gives the hashes of the larger subtrees that are complete with it, from small to large.
    pub fn push(&mut self, leaf: Sha256Digest) -> Vec<Sha256Digest> {
        let mut complete = Vec::new();
        let mut hash = leaf;
        // Each trailing one of the size is a subtree as large as the one that ends here.
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.edge.pop() else { break };
            hash = node_hash(&left, &hash);
            complete.push(hash);
        }
        self.edge.push(hash);
        self.size += 1;
        complete
    }
}

/// A complete subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subtree {
    /// Its height; 0 is a leaf.
    pub level: u32,
    /// Its number among those of its height, from 0.
    pub number: u64,
}

impl Subtree {
    /// The place of its last entry, with which it is complete.
    #[must_use]
    pub const fn last(self) -> u64 {
        ((self.number + 1) << self.level) - 1
    }
}

/// What is stored of an entry: one byte with the number of hashes, the hashes of the subtrees that it completes from small
/// to large (32 bytes each), the entry's bytes. Thus any proof is made of a few rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    complete: Vec<Sha256Digest>,
    entry: Vec<u8>,
}

impl Row {
    /// Of an entry that is added to `tree`.
    #[must_use]
    pub fn push(tree: &mut Tree, entry: Vec<u8>) -> Self {
        Self { complete: tree.push(leaf_hash(&entry)), entry }
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 32 * self.complete.len() + self.entry.len());
        // At most 63: a tree has no more than 2^64 entries.
        bytes.push(u8::try_from(self.complete.len()).unwrap_or(u8::MAX));
        self.complete.iter().for_each(|hash| bytes.extend_from_slice(hash.as_bytes()));
        bytes.extend_from_slice(&self.entry);
        bytes
    }

    /// Reads what is stored at a place.
    ///
    /// # Errors
    /// [`AuditError::Entry`].
    pub fn decode(bytes: &[u8], place: u64) -> Result<Self, AuditError> {
        let refused = || AuditError::Entry { place, what: "its row is cut short" };
        let (count, rest) = bytes.split_first().ok_or_else(refused)?;
        let (hashes, entry) = rest.split_at_checked(32 * usize::from(*count)).ok_or_else(refused)?;
        let hashes = hashes.as_chunks::<32>().0;
        Ok(Self { complete: hashes.iter().map(|hash| Sha256Digest::new(*hash)).collect(), entry: entry.to_vec() })
    }

    /// The hash of the subtree of this height that ends here; `None` where none does.
    #[must_use]
    pub fn subtree(&self, level: u32) -> Option<Sha256Digest> {
        match level.checked_sub(1) {
            None => Some(leaf_hash(&self.entry)),
            Some(above) => self.complete.get(usize::try_from(above).ok()?).copied(),
        }
    }

    /// The entry's bytes.
    #[must_use]
    pub fn into_entry(self) -> Vec<u8> {
        self.entry
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(count: u64) -> Vec<Sha256Digest> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    /// RFC 9162's definition, word for word.
    fn defined(leaves: &[Sha256Digest]) -> Sha256Digest {
        match leaves {
            [] => Sha256Digest::of(&[]),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at((leaves.len().next_power_of_two()) / 2);
                node_hash(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn grows_to_what_the_definition_gives_and_its_rows_hold_every_complete_subtree() {
        let mut tree = Tree::default();
        let mut rows = Vec::new();
        let leaves = leaves(130);
        assert_eq!(tree.root(), defined(&[]));
        for size in 1u64..=130 {
            let row = Row::push(&mut tree, (size - 1).to_be_bytes().to_vec());
            assert_eq!(Row::decode(&row.encode(), size - 1).unwrap(), row);
            rows.push(row);
            let so_far = &leaves[..usize::try_from(size).unwrap()];
            assert_eq!((tree.size(), tree.root()), (size, defined(so_far)));
        }
        for level in 0..7u32 {
            for number in 0..(130u64 >> level) {
                let (from, to) = (number << level, (number + 1) << level);
                let complete = defined(&leaves[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()]);
                let row = &rows[usize::try_from(Subtree { level, number }.last()).unwrap()];
                assert_eq!(row.subtree(level), Some(complete));
            }
        }
        assert_eq!(rows[2].subtree(1), None);
    }

    #[test]
    fn a_row_cut_short_is_refused() {
        let mut tree = Tree::default();
        let rows: Vec<_> = (0..8u8).map(|n| Row::push(&mut tree, vec![n]).encode()).collect();
        for cut in 0..97 {
            assert!(Row::decode(&rows[7][..cut], 7).is_err(), "{cut}");
        }
        assert_eq!(Row::decode(&rows[7], 7).unwrap().into_entry(), [7]);
    }

    proptest! {
        #[test]
        fn its_parts_are_read_back_and_others_are_refused(count in 0u64..200, less in any::<bool>()) {
            let mut tree = Tree::default();
            leaves(count).into_iter().for_each(|leaf| _ = tree.push(leaf));
            let text = serde_json::to_string(&tree).unwrap();
            prop_assert_eq!(serde_json::from_str::<Tree>(&text).unwrap(), tree.clone());
            let mut parts = Parts::from(tree);
            if !less || parts.edge.pop().is_none() {
                parts.edge.push(Sha256Digest::of(&[]));
            }
            prop_assert!(Tree::try_from(parts).is_err());
        }
    }
}
