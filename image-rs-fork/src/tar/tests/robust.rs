//! Whatever the bytes, the parser ends with entries or a refusal, and how they were cut does not matter.

use proptest::prelude::*;

use super::cases::all;
use super::list::{parse, story};
use crate::tar::TarLimits;

/// Bytes of an archive overwritten, cut out or repeated.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    /// Makes the sums of all headers right again, so that the change is not only found there.
    Mend,
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (any::<prop::sample::Index>(), 1..600usize).prop_map(|(at, count)| Change::Cut(at, count)),
        1 => (any::<prop::sample::Index>(), 1..3usize).prop_map(|(at, blocks)| Change::Repeat(at, blocks * 512)),
        4 => Just(Change::Mend),
    ]
}

pub(super) fn apply(archive: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        if archive.is_empty() {
            return;
        }
        match change {
            Change::Set(at, byte) => {
                let at = at.index(archive.len());
                archive[at] = *byte;
            }
            Change::Cut(at, count) => {
                let at = at.index(archive.len());
                archive.drain(at..(at + count).min(archive.len()));
            }
            Change::Repeat(at, count) => {
                let at = at.index(archive.len()) / 512 * 512;
                let again = archive[at..(at + count).min(archive.len())].to_vec();
                archive.splice(at..at, again);
            }
            Change::Mend => archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar").for_each(mend),
        }
    }
}

fn mend(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_archives_never_panic_and_cuts_do_not_matter(
        case in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 0..8),
        pieces in prop::collection::vec(1..1500usize, 1..6),
    ) {
        let cases = all();
        let (_, mut archive) = cases[case.index(cases.len())].clone();
        apply(&mut archive, &changes);
        prop_assert_eq!(story(&archive, &[usize::MAX]), story(&archive, &pieces));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = parse(&bytes, TarLimits::default(), &[usize::MAX]);
    }
}
