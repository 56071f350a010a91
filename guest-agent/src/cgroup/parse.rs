//! The forms that control group files have. Pure; what is not of the form counts as nothing.

use std::collections::BTreeMap;

/// The most entries taken from one file.
const MAX_ENTRIES: usize = 4096;

/// One number; `max` is the largest there is, anything else 0.
#[must_use]
pub fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Numbers between spaces.
#[must_use]
pub fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace().take(MAX_ENTRIES).map(number).collect()
}

/// Lines `KEY NUMBER`.
#[must_use]
pub fn keyed(text: &str) -> BTreeMap<String, u64> {
    let entry = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(entry).take(MAX_ENTRIES).collect()
}

/// What one block device was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoEntry {
    /// Device number, major part.
    pub major: u64,
    /// Device number, minor part.
    pub minor: u64,
    /// `Read`, `Write`, ...; empty where the file tells only a sum.
    pub op: String,
    /// Bytes, operations, nanoseconds, as the file has it.
    pub value: u64,
}

/// Version 1's lines `MAJOR:MINOR [OP] NUMBER`; the line `Total NUMBER` is of no device.
#[must_use]
pub fn io_entries(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = device(words.next()?)?;
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(IoEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).take(MAX_ENTRIES).collect()
}

/// Version 2's `io.stat`, lines `MAJOR:MINOR KEY=NUMBER ...`: bytes and operations, in version 1's words.
#[must_use]
pub fn io_stat(text: &str) -> (Vec<IoEntry>, Vec<IoEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines().take(MAX_ENTRIES) {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            list.push(IoEntry { major, minor, op: op.to_owned(), value: number(value) });
        }
    }
    (bytes, operations)
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn forms_of_another_kind_count_as_nothing() {
        assert_eq!(["", "max\n", "-1", "7\n", "7x", "99999999999999999999999"].map(number), [0, u64::MAX, 0, 7, 0, 0]);
        assert_eq!(keyed("a 1\nb\nc x\n d 2\n e 3"), BTreeMap::from([("a".to_owned(), 1)]));
        assert!(io_entries("Total 7\n8 Read 1\n8:x Read 1\n8:0 Read\n").is_empty());
        assert_eq!(io_stat("8:0 rbytes\n8:0\nx rbytes=1\n"), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in any::<String>()) {
            let _ = (number(&text), numbers(&text), keyed(&text), io_entries(&text), io_stat(&text));
        }

        #[test]
        fn what_the_kernel_writes_is_read_back(map in prop::collection::btree_map("[a-z_]{1,12}", any::<u64>(), 0..40)) {
            let text: String = map.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
            prop_assert_eq!(keyed(&text), map);
        }

        #[test]
        fn devices_keep_their_numbers(major in any::<u32>(), minor in any::<u32>(), value in any::<u64>()) {
            let entries = io_entries(&format!("{major}:{minor} Read {value}\n{major}:{minor} {value}\nTotal {value}\n"));
            let of = |op: &str| IoEntry { major: major.into(), minor: minor.into(), op: op.to_owned(), value };
            prop_assert_eq!(entries, [of("Read"), of("")]);
            let (bytes, operations) = io_stat(&format!("{major}:{minor} rbytes={value} rios={value}\n"));
            prop_assert_eq!((bytes, operations), (vec![of("Read")], vec![of("Read")]));
        }
    }
}
