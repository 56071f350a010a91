//! PAX extended headers (POSIX.1-2001): records `LENGTH KEY=VALUE\n`.

use super::Mtime;

/// Prefix of extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records we use; all others are passed over, as every reader does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Mtime>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// It has records of a sparse file, in any of GNU's three forms.
    pub(super) sparse: bool,
}

impl Pax {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("a PAX record is not LENGTH KEY=VALUE")?;
            pax.take(key, value)?;
            bytes = rest;
        }
        Ok(pax)
    }

    /// Whether any record would change an entry.
    pub(super) fn describes_entries(&self) -> bool {
        *self != Self::default()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if key.starts_with(b"GNU.sparse.") {
            self.sparse = true;
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(XATTR) {
            if name.is_empty() || name.contains(&0) || self.xattrs.iter().any(|(other, _)| other == name) {
                return Err(format!("extended attribute {} twice or without a name", super::show(name)));
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        // An empty value takes the record back; common readers then keep the header's field.
        if value.is_empty() {
            return Ok(());
        }
        let twice = match key {
            b"path" => self.path.replace(text(value)?).is_some(),
            b"linkpath" => self.link.replace(text(value)?).is_some(),
            b"size" => self.size.replace(decimal(value)?).is_some(),
            b"uid" => self.uid.replace(decimal(value)?).is_some(),
            b"gid" => self.gid.replace(decimal(value)?).is_some(),
            b"mtime" => self.mtime.replace(time(value)?).is_some(),
            _ => false,
        };
        // Some readers take the first, some the last.
        if twice { Err(format!("PAX record {} twice", super::show(key))) } else { Ok(()) }
    }
}

/// Splits one record off: its key, its value, and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|b| *b == b' ')?;
    let (digits, _) = bytes.split_at_checked(space)?;
    let length = usize::try_from(decimal(digits).ok()?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space.checked_add(1)?..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let (key, value) = body.split_at_checked(equals)?;
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, value.get(1..)?, rest))
}

fn text(value: &[u8]) -> Result<Vec<u8>, String> {
    if value.contains(&0) { Err("a NUL in a PAX path".to_owned()) } else { Ok(value.to_vec()) }
}

fn decimal(value: &[u8]) -> Result<u64, String> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{} is not a number of PAX", super::show(value)))
}

/// `[-]SECONDS[.FRACTION]`; digits below a nanosecond are cut off.
fn time(value: &[u8]) -> Result<Mtime, String> {
    let refused = || format!("{} is not a time of PAX", super::show(value));
    let text = std::str::from_utf8(value).map_err(|_| refused())?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused());
    }
    let seconds = decimal(whole.as_bytes()).map_err(|_| refused())?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds = digits.parse().map_err(|_| refused())?;
    // Every negative time counts as 1970.
    let seconds = if negative { -1 } else { i64::try_from(seconds).unwrap_or(i64::MAX) };
    Ok(Mtime::bounded(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(records: &[u8]) -> Result<Pax, String> {
        Pax::parse(records)
    }

    #[test]
    fn reads_records_by_their_length() {
        let records: [(&str, &[u8]); 5] = [
            ("path", b"a\nb=c/d"),
            ("mtime", b"1.5000000019"),
            ("uid", b"3000000"),
            ("SCHILY.xattr.u.v", b"x"),
            ("size", b""),
        ];
        let pax = parse(&crate::tar::build::records(&records)).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb=c/d"[..]));
        assert_eq!(pax.mtime, Some(Mtime { seconds: 1, nanoseconds: 500_000_001 }));
        assert_eq!(pax.uid, Some(3_000_000));
        assert_eq!(pax.xattrs, [(b"u.v".to_vec(), b"x".to_vec())]);
        assert_eq!(pax.size, None, "an empty value leaves the header's");
    }

    #[test]
    fn refuses_records_readers_disagree_on() {
        for records in [
            &b"8 path=a\n8 path=b\n"[..],
            b"x path=a\n",
            b"99 path=a\n",
            b"9 path=a\n\0",
            b"0 a=\n",
            b"4 =a\n",
            b"10 path=a\0\n",
            b"9 size=-\n",
            b"10 size=-1\n",
            b"10 uid=+10\n",
            b"11 mtime=.1\n",
            b"13 mtime=1.1x\n",
            b"99999999999999999999999 a=b\n",
            b"8 path=a",
            b" 8 path=a\n",
        ] {
            assert!(parse(records).is_err(), "{}", records.escape_ascii());
        }
        assert!(parse(b"8 path=a\n").is_err(), "length 8 cuts the line feed");
        assert!(parse(b"9 path=a\n").is_ok());
    }

    #[test]
    fn times_outside_the_range_count_as_1970() {
        assert_eq!(time(b"-1.5").unwrap(), Mtime::default());
        assert_eq!(time(b"99999999999999").unwrap(), Mtime::default());
        assert_eq!(time(b"2").unwrap(), Mtime { seconds: 2, nanoseconds: 0 });
    }
}
