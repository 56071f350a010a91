//! Numbers as tar writes them: octal, base-256, decimal.

/// A header field: octal, or base-256 when the first bit is set (two's complement, big-endian, the next bit
/// is the sign). Empty is 0. `None` for anything else and for values beyond 63 bits.
pub(super) fn numeric(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

/// Octal digits among spaces and NULs; what follows a NUL after the digits is not looked at.
pub(super) fn octal(field: &[u8]) -> Option<i64> {
    let mut value = 0i64;
    let mut bytes = field.iter();
    let mut digits = false;
    for byte in bytes.by_ref() {
        match byte {
            b'0'..=b'7' => {
                digits = true;
                value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?;
            }
            b' ' | 0 if !digits => {}
            0 => return Some(value),
            b' ' => break,
            _ => return None,
        }
    }
    bytes.all(|b| matches!(b, b' ' | 0)).then_some(value)
}

fn base256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let flip = if negative { 0xff } else { 0 };
    let mut value = i64::from((first ^ flip) & 0x7f);
    for byte in rest {
        value = value.checked_mul(256)?.checked_add(i64::from(byte ^ flip))?;
    }
    Some(if negative { !value } else { value })
}

/// Decimal digits with an optional `-`, as PAX records hold them.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(if negative { -value } else { value })
}

/// Decimal seconds with an optional fraction of any length: seconds rounded down, and nanoseconds (digits
/// beyond the ninth are cut off). `-1.5` is (-2, 500,000,000).
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let point = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at_checked(point)?;
    let seconds = decimal(whole)?;
    let fraction = fraction.get(1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if whole.starts_with(b"-") && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_are_padded_with_spaces_and_nuls_on_either_side() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0 644\0 ", Some(0o644)),
            (b"00000644", Some(0o644)),
            (b"644\0junk", Some(0o644)),
            (b"        ", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"644 junk", None),
            (b"64 4\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"0x00644\0", None),
        ] {
            assert_eq!(numeric(field), value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn base256_holds_negative_numbers_and_refuses_more_than_63_bits() {
        assert_eq!(numeric(b"\x80\0\0\0\0\x2d\xc6\xc0"), Some(3_000_000));
        assert_eq!(numeric(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(numeric(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x9c"), Some(-100));
        assert_eq!(numeric(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
        assert_eq!(numeric(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None);
        assert_eq!(numeric(b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0"), Some(i64::MIN));
        assert_eq!(numeric(b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(numeric(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }

    #[test]
    fn decimals_have_digits_and_perhaps_a_minus() {
        for (text, value) in [
            (&b"0"[..], Some(0)),
            (b"00012", Some(12)),
            (b"-7", Some(-7)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"9223372036854775808", None),
            (b"", None),
            (b"-", None),
            (b"+7", None),
            (b" 7", None),
            (b"7 ", None),
            (b"1e3", None),
        ] {
            assert_eq!(decimal(text), value, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn times_are_rounded_down_and_cut_to_nanoseconds() {
        for (text, value) in [
            (&b"1350244992.023960108"[..], Some((1_350_244_992, 23_960_108))),
            (b"1.0239601089", Some((1, 23_960_108))),
            (b"5.", Some((5, 0))),
            (b"-1.5", Some((-2, 500_000_000))),
            (b"-0.25", Some((-1, 750_000_000))),
            (b"-3", Some((-3, 0))),
            (b"-3.000", Some((-3, 0))),
            (b".5", None),
            (b"1.2.3", None),
            (b"1.-2", None),
            (b"", None),
        ] {
            assert_eq!(time(text), value, "{}", text.escape_ascii());
        }
    }
}
