//! One 512-byte header block (POSIX.1-1988 ustar, and the GNU and old forms of it).

/// Size of a block in bytes.
pub(super) const BLOCK: usize = 512;

/// A header's fields, numbers read and paths joined.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) typeflag: u8,
    pub(super) mode: u32,
    /// `None` for a number that is negative or above 64 bits; PAX may still give the real one.
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, String> {
        let field = |start: usize, len: usize| block.get(start..start.saturating_add(len)).unwrap_or_default();
        check_sum(block, field(148, 8))?;
        let posix = field(257, 6) == b"ustar\0";
        let gnu = field(257, 8) == b"ustar  \0";
        let typeflag = field(156, 1).first().copied().unwrap_or_default();
        let unsigned = |start, len, what: &str| {
            let number = number(field(start, len)).ok_or_else(|| format!("{what} is not a number"))?;
            u64::try_from(number).map_err(|_| format!("{what} is negative or too large"))
        };
        let device = |start, what: &str| match typeflag {
            b'3' | b'4' if posix || gnu => {
                u32::try_from(unsigned(start, 8, what)?).map_err(|_| format!("{what} is too large"))
            }
            _ => Ok(0),
        };
        let name = until_nul(field(0, 100));
        // Only ustar has a prefix; GNU keeps other fields there.
        let prefix = if posix { until_nul(field(345, 155)) } else { &[] };
        let path = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
        let mode = u32::try_from(unsigned(100, 8, "the mode")? & 0o7777).unwrap_or_default();
        let mtime = number(field(136, 12)).ok_or("the time is not a number")?;
        Ok(Self {
            path,
            link: until_nul(field(157, 100)).to_vec(),
            typeflag,
            mode,
            uid: number(field(108, 8)).and_then(|n| u64::try_from(n).ok()),
            gid: number(field(116, 8)).and_then(|n| u64::try_from(n).ok()),
            size: unsigned(124, 12, "the size")?,
            mtime: i64::try_from(mtime).unwrap_or(i64::MIN),
            major: device(329, "the device's major number")?,
            minor: device(337, "the device's minor number")?,
        })
    }
}

/// The sum of all bytes, the sum's own field taken as spaces; old writers summed signed bytes.
fn check_sum(block: &[u8; BLOCK], written: &[u8]) -> Result<(), String> {
    let (mut unsigned, mut signed) = (0i128, 0i128);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned = unsigned.saturating_add(i128::from(byte));
        signed = signed.saturating_add(i128::from(byte.cast_signed()));
    }
    match number(written) {
        Some(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => Err("a header's checksum is wrong, so this is no tar archive".to_owned()),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// Octal digits between spaces and NULs, or a big-endian number whose first bit is set (base-256).
fn number(field: &[u8]) -> Option<i128> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement without the marking bit; bit 6 is the sign.
        let mut value = i128::from(first & 0x3f);
        if first & 0x40 != 0 {
            value = value.checked_sub(0x40)?;
        }
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        }
        return Some(value);
    }
    let start = field.iter().position(|b| !matches!(b, b' ' | 0)).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let end = digits.iter().position(|b| matches!(b, b' ' | 0)).unwrap_or(digits.len());
    let (digits, after) = digits.split_at_checked(end)?;
    if after.iter().any(|b| !matches!(b, b' ' | 0)) {
        return None;
    }
    let mut value = 0i128;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i128::from(*digit - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_octal_and_base_256_numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"12345678"), None, "8 is no octal digit");
        assert_eq!(number(b"12 34\0"), None, "two numbers");
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]), Some(3_000_000));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1 << 80));
        assert_eq!(number(b""), None);
    }
}
