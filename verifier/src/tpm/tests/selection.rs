//! Which registers a quote selects. Every quote here is signed, and its digest is right for what it selects: only the
//! selection is wrong.

use proptest::prelude::*;

use super::*;

const SHA1: u16 = 0x0004;
const SHA256: u16 = 0x000B;
const SHA384: u16 = 0x000C;

type Selections = Vec<(u16, Vec<u8>)>;

/// The word for a quote over these selections.
fn quoted(selections: &Selections) -> &'static str {
    let values: Vec<Sha256Digest> = (0u8..24).map(|number| Sha256Digest::new([number; 32])).collect();
    let selected = selections.iter().flat_map(|(_, map)| {
        (0..map.len() * 8).filter(|pcr| map[pcr / 8] >> (pcr % 8) & 1 == 1).filter_map(|pcr| values.get(pcr).copied())
    });
    let mut quote = Quote::good();
    quote.digest = pcr_digest(&selected.collect::<Vec<_>>()).as_bytes().to_vec();
    quote.selections.clone_from(selections);
    word(run(&quote.signed(&key(1))))
}

#[test]
fn only_exactly_the_expected_selection_counts_in_no_other_order_or_split() {
    let all = [0xFF, 0xFF, 0xFF];
    let bits = |pcrs: &mut dyn Iterator<Item = usize>| {
        let mut map = [0u8; 3];
        pcrs.for_each(|pcr| map[pcr / 8] |= 1 << (pcr % 8));
        map.to_vec()
    };
    let mut wrong: Vec<Vec<(u16, Vec<u8>)>> = vec![
        vec![],
        vec![(SHA256, vec![0; 3])],
        vec![(SHA256, all.to_vec()), (SHA256, all.to_vec())],
        vec![(SHA256, [0xFF, 0xFF, 0xFF, 0x00].to_vec())],
        vec![(SHA256, [0xFF, 0xFF, 0xFF, 0x01].to_vec())],
    ];
    for bank in [SHA1, SHA384] {
        wrong.push(vec![(bank, all.to_vec())]);
        // Another bank that selects nothing, or everything, before or behind.
        for other in [vec![0; 3], all.to_vec()] {
            wrong.push(vec![(bank, other.clone()), (SHA256, all.to_vec())]);
            wrong.push(vec![(SHA256, all.to_vec()), (bank, other)]);
        }
    }
    for empty in [vec![0], vec![0; 2], vec![0; 3]] {
        wrong.push(vec![(SHA256, all.to_vec()), (SHA256, empty.clone())]);
        wrong.push(vec![(SHA256, empty), (SHA256, all.to_vec())]);
    }
    for pcr in 0..24 {
        // One left out, one alone, and the rest of it in front or behind: the values' order is the same in one of them.
        let (without, only) = (bits(&mut (0..24).filter(|p| *p != pcr)), bits(&mut std::iter::once(pcr)));
        wrong.push(vec![(SHA256, without.clone())]);
        wrong.push(vec![(SHA256, only.clone())]);
        wrong.push(vec![(SHA256, without.clone()), (SHA256, only.clone())]);
        wrong.push(vec![(SHA256, only), (SHA256, without)]);
        let (low, high) = (bits(&mut (0..pcr)), bits(&mut (pcr..24)));
        wrong.push(vec![(SHA256, low.clone()), (SHA256, high.clone())]);
        wrong.push(vec![(SHA256, high), (SHA256, low)]);
    }
    for size in [1, 2] {
        wrong.push(vec![(SHA256, vec![0xFF; size])]);
    }
    assert!(wrong.len() > 150);
    for selections in wrong {
        assert_eq!(quoted(&selections), "evidence.pcr", "{selections:?}");
    }
}

/// The 24 registers divided among some parts, in any order; each of SHA-256.
fn split() -> impl Strategy<Value = Selections> {
    (2usize..6).prop_flat_map(|parts| {
        prop::collection::vec(0..parts, 24).prop_map(move |owners| {
            let mut maps = vec![vec![0u8; 3]; parts];
            for (pcr, owner) in owners.into_iter().enumerate() {
                maps[owner][pcr / 8] |= 1 << (pcr % 8);
            }
            maps.into_iter().map(|map| (SHA256, map)).collect()
        })
    })
}

/// Anything that a quote can carry.
fn any_selections() -> impl Strategy<Value = Selections> {
    let bank = prop::sample::select(vec![SHA1, SHA256, SHA384, 0x000D, 0x0000]);
    let map = prop_oneof![prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(Just(0xFF), 0..6)];
    prop::collection::vec((bank, map), 0..6)
}

proptest! {
    #[test]
    fn no_split_of_the_registers_is_the_selection(selections in split()) {
        prop_assert_eq!(quoted(&selections), "evidence.pcr");
    }

    #[test]
    fn a_selection_passes_only_where_it_is_the_expected_one(selections in any_selections()) {
        let good = selections == [(SHA256, vec![0xFF; 3])];
        // Bitmaps longer than a TPM has, or more selections than it has banks, are no quote at all.
        let code = quoted(&selections);
        prop_assert!(if good { code == "pass" } else { ["evidence.pcr", "evidence.malformed"].contains(&code) }, "{}", code);
    }
}
