//! Proofs of inclusion and of consistency (RFC 9162, sections 2.1.3 and 2.1.4): what they are made of, and whether they
//! hold.

use protocols::digest::Sha256Digest;

use crate::AuditError;
use crate::tree::{Subtree, fold, node_hash};

/// Which complete subtrees a proof is made of: each hash of the proof is one over neighbouring ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    nodes: Vec<Vec<Subtree>>,
}

impl Plan {
    /// That the entry at `place` is in the tree of `size` entries; `None` when it cannot be.
    #[must_use]
    pub fn inclusion(place: u64, size: u64) -> Option<Self> {
        if place >= size {
            return None;
        }
        let mut nodes = Vec::new();
        path(place, 0, size, &mut nodes);
        Some(Self { nodes })
    }

    /// That the tree of `new` entries grew out of the one of `old`; `None` when it cannot have.
    #[must_use]
    pub fn consistency(old: u64, new: u64) -> Option<Self> {
        if old > new {
            return None;
        }
        let mut nodes = Vec::new();
        if old > 0 {
            grown(old, 0, new, true, &mut nodes);
        }
        Some(Self { nodes })
    }

    /// The subtrees whose hashes it needs.
    #[must_use]
    pub fn subtrees(&self) -> Vec<Subtree> {
        self.nodes.concat()
    }

    /// The proof, from the hashes of [`Plan::subtrees`]; `None` when their number is another.
    #[must_use]
    pub fn prove(&self, hashes: &[Sha256Digest]) -> Option<Vec<Sha256Digest>> {
        let mut rest = hashes;
        let mut proof = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let (subtrees, others) = rest.split_at_checked(node.len())?;
            proof.push(fold(subtrees)?);
            rest = others;
        }
        rest.is_empty().then_some(proof)
    }
}

/// The largest power of two below `size`, which is at least 2.
const fn half(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The complete subtrees that entries `from..from + size` are made of; `from` is where a tree of that size may begin.
fn range(from: u64, size: u64) -> Vec<Subtree> {
    let mut subtrees = Vec::new();
    let (mut from, mut rest) = (from, size);
    while rest > 0 {
        let level = u64::BITS - 1 - rest.leading_zeros();
        subtrees.push(Subtree { level, number: from >> level });
        from += 1 << level;
        rest -= 1 << level;
    }
    subtrees
}

fn path(place: u64, from: u64, size: u64, nodes: &mut Vec<Vec<Subtree>>) {
    if size == 1 {
        return;
    }
    let left = half(size);
    if place < left {
        path(place, from, left, nodes);
        nodes.push(range(from + left, size - left));
    } else {
        path(place - left, from + left, size - left, nodes);
        nodes.push(range(from, left));
    }
}

fn grown(old: u64, from: u64, size: u64, known: bool, nodes: &mut Vec<Vec<Subtree>>) {
    if old == size {
        if !known {
            nodes.push(range(from, size));
        }
        return;
    }
    let left = half(size);
    if old <= left {
        grown(old, from, left, known, nodes);
        nodes.push(range(from + left, size - left));
    } else {
        grown(old - left, from + left, size - left, false, nodes);
        nodes.push(range(from, left));
    }
}

/// Checks that `leaf` stands at `place` in the tree of `size` entries with this root.
///
/// # Errors
/// [`AuditError::Proof`].
pub fn verify_inclusion(
    leaf: Sha256Digest,
    place: u64,
    size: u64,
    proof: &[Sha256Digest],
    root: &Sha256Digest,
) -> Result<(), AuditError> {
    if place < size && root_of(leaf, place, size, proof) == Some(*root) { Ok(()) } else { Err(AuditError::Proof) }
}

fn root_of(leaf: Sha256Digest, place: u64, size: u64, proof: &[Sha256Digest]) -> Option<Sha256Digest> {
    if size == 1 {
        return proof.is_empty().then_some(leaf);
    }
    let (sibling, below) = proof.split_last()?;
    let left = half(size);
    Some(if place < left {
        node_hash(&root_of(leaf, place, left, below)?, sibling)
    } else {
        node_hash(sibling, &root_of(leaf, place - left, size - left, below)?)
    })
}

/// Checks that the tree of `new` entries grew out of the one of `old`.
///
/// # Errors
/// [`AuditError::Shrunk`], [`AuditError::Fork`].
pub fn verify_consistency(
    (old, old_root): (u64, &Sha256Digest),
    (new, new_root): (u64, &Sha256Digest),
    proof: &[Sha256Digest],
) -> Result<(), AuditError> {
    if old > new {
        return Err(AuditError::Shrunk { expected: old, actual: new });
    }
    let nothing = Sha256Digest::of(&[]);
    let holds = match old {
        0 => proof.is_empty() && *old_root == nothing && (new > 0 || *new_root == nothing),
        _ => roots_of(old, new, Some(old_root), proof) == Some((*old_root, *new_root)),
    };
    if holds { Ok(()) } else { Err(AuditError::Fork { older: old, newer: new }) }
}

/// The roots of the two trees that a proof leads to.
fn roots_of(
    old: u64,
    size: u64,
    known: Option<&Sha256Digest>,
    proof: &[Sha256Digest],
) -> Option<(Sha256Digest, Sha256Digest)> {
    if old == size {
        return match (known, proof) {
            (Some(root), []) => Some((*root, *root)),
            (None, [root]) => Some((*root, *root)),
            _ => None,
        };
    }
    let (sibling, below) = proof.split_last()?;
    let left = half(size);
    Some(if old <= left {
        let (before, after) = roots_of(old, left, known, below)?;
        (before, node_hash(&after, sibling))
    } else {
        let (before, after) = roots_of(old - left, size - left, None, below)?;
        (node_hash(sibling, &before), node_hash(sibling, &after))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::{Row, Tree, leaf_hash};

    struct Grown {
        leaves: Vec<Sha256Digest>,
        rows: Vec<Row>,
        roots: Vec<Sha256Digest>,
    }

    fn grow(count: u64) -> Grown {
        let mut tree = Tree::default();
        let (mut leaves, mut rows, mut roots) = (Vec::new(), Vec::new(), vec![tree.root()]);
        for n in 0..count {
            leaves.push(leaf_hash(&n.to_be_bytes()));
            rows.push(Row::push(&mut tree, n.to_be_bytes().to_vec()));
            roots.push(tree.root());
        }
        Grown { leaves, rows, roots }
    }

    impl Grown {
        fn root(&self, size: u64) -> &Sha256Digest {
            &self.roots[usize::try_from(size).unwrap()]
        }

        fn prove(&self, plan: Option<Plan>) -> Vec<Sha256Digest> {
            let plan = plan.unwrap();
            let of = |subtree: Subtree| &self.rows[usize::try_from(subtree.last()).unwrap()];
            let hashes: Vec<_> = plan.subtrees().into_iter().map(|s| of(s).subtree(s.level).unwrap()).collect();
            plan.prove(&hashes).unwrap()
        }
    }

    #[test]
    fn every_entry_of_every_tree_is_proven_at_its_place_and_no_other() {
        let grown = grow(40);
        for size in 1..=40 {
            for place in 0..size {
                let proof = grown.prove(Plan::inclusion(place, size));
                for (other, leaf) in (0..size).zip(&grown.leaves) {
                    let holds = verify_inclusion(*leaf, place, size, &proof, grown.root(size));
                    assert_eq!(holds.is_ok(), other == place, "{other} at {place} of {size}");
                }
                let leaf = grown.leaves[usize::try_from(place).unwrap()];
                assert!(verify_inclusion(leaf, place, size, &proof, grown.root(size - 1)).is_err());
            }
        }
        assert_eq!((Plan::inclusion(3, 3), Plan::consistency(4, 3)), (None, None));
    }

    #[test]
    fn every_tree_is_proven_to_have_grown_out_of_every_earlier_one() {
        let grown = grow(40);
        for new in 0..=40 {
            for old in 0..=new {
                let proof = grown.prove(Plan::consistency(old, new));
                let (before, after) = ((old, grown.root(old)), (new, grown.root(new)));
                verify_consistency(before, after, &proof).unwrap();
                assert_eq!(old == new, verify_consistency(after, before, &proof).is_ok());
                let forged = Sha256Digest::of(b"another history");
                assert!(verify_consistency((old, &forged), after, &proof).is_err());
                if old > 0 {
                    assert!(verify_consistency(before, (new, &forged), &proof).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn an_altered_shortened_or_lengthened_proof_proves_nothing(
            size in 2u64..300, place in any::<u64>(), at in any::<usize>(), how in 0u8..3,
        ) {
            let grown = grow(size);
            let place = place % size;
            let mut inclusion = grown.prove(Plan::inclusion(place, size));
            let mut consistency = grown.prove(Plan::consistency(place + 1, size));
            for proof in [&mut inclusion, &mut consistency] {
                let forged = Sha256Digest::of(b"forged");
                match how {
                    0 => proof.push(forged),
                    1 if !proof.is_empty() => _ = proof.pop(),
                    _ => match proof.len() {
                        0 => proof.push(forged),
                        length => proof[at % length] = forged,
                    },
                }
            }
            let leaf = grown.leaves[usize::try_from(place).unwrap()];
            prop_assert!(verify_inclusion(leaf, place, size, &inclusion, grown.root(size)).is_err());
            let before = (place + 1, grown.root(place + 1));
            prop_assert!(verify_consistency(before, (size, grown.root(size)), &consistency).is_err());
        }

        #[test]
        fn any_proof_for_any_size_is_answered_without_a_panic(
            place in any::<u64>(), size in any::<u64>(), hashes in 0usize..70,
        ) {
            let proof = vec![Sha256Digest::of(&[]); hashes];
            let _ = verify_inclusion(proof.first().copied().unwrap_or_else(|| leaf_hash(&[])), place, size, &proof,
                &Sha256Digest::of(b"root"));
            let root = Sha256Digest::of(b"root");
            let _ = verify_consistency((place, &root), (size, &root), &proof);
        }
    }
}
