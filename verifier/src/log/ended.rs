//! The launch numbers that have ended, as ranges: a long-lived guest's state stays small.

use serde::{Deserialize, Serialize};

/// Inclusive ranges, ascending, never touching.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ended(Vec<(u64, u64)>);

impl Ended {
    /// Whether `seq` has ended.
    pub(super) fn contains(&self, seq: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        after.checked_sub(1).and_then(|place| self.0.get(place)).is_some_and(|(_, last)| seq <= *last)
    }

    /// The highest that has ended.
    pub(super) fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    /// Adds one, which must not be in it, and joins what then touches.
    pub(super) fn insert(&mut self, seq: u64) {
        let place = self.0.partition_point(|(first, _)| *first <= seq);
        let touches_next = self.0.get(place).is_some_and(|(first, _)| seq.checked_add(1) == Some(*first));
        let (_, last) = if touches_next { self.0.remove(place) } else { (seq, seq) };
        let before = place.checked_sub(1).and_then(|before| self.0.get_mut(before));
        match before.filter(|(_, end)| end.checked_add(1) == Some(seq)) {
            Some((_, end)) => *end = last,
            None => self.0.insert(place, (seq, last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::Ended;

    proptest! {
        #[test]
        fn behaves_as_a_set_and_stays_joined(numbers in prop::collection::vec(0u64..40, 0..60)) {
            let (mut ended, mut set) = (Ended::default(), BTreeSet::new());
            for number in numbers {
                if set.insert(number) {
                    ended.insert(number);
                }
            }
            for number in 0..42 {
                prop_assert_eq!(ended.contains(number), set.contains(&number));
            }
            let gaps = set.iter().filter(|n| !set.contains(&(**n + 1))).count();
            prop_assert_eq!(ended.0.len(), gaps);
            prop_assert_eq!(ended.last(), set.last().copied());
        }
    }

    #[test]
    fn takes_the_highest_number_there_is() {
        let mut ended = Ended::default();
        ended.insert(u64::MAX);
        assert!(ended.contains(u64::MAX));
        assert!(!ended.contains(0));
    }
}
