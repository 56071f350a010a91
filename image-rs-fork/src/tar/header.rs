//! One 512-byte header block: v7, ustar, star and GNU.

use super::error::{TarError, show};
use super::number::{numeric, octal};

/// Bytes of a block; headers, and the data of files, start at multiples of it.
pub(super) const BLOCK: usize = 512;

/// One block.
pub(super) type Block = [u8; BLOCK];

/// What a header states, numbers decoded, names cut at their NUL.
#[derive(Debug)]
pub(super) struct Header<'b> {
    pub(super) typeflag: u8,
    /// To be joined before `name` with a `/` unless empty.
    pub(super) prefix: &'b [u8],
    pub(super) name: &'b [u8],
    pub(super) link: &'b [u8],
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
    /// The GNU form, the only one with the sparse map of type `S`.
    pub(super) gnu: bool,
}

/// The field of `LEN` bytes at `AT`.
fn field<const AT: usize, const LEN: usize>(block: &Block) -> &[u8; LEN] {
    const { assert!(AT + LEN <= BLOCK) };
    block.get(AT..AT + LEN).and_then(|bytes| bytes.try_into().ok()).unwrap_or(const { &[0; LEN] })
}

/// A field's text up to its NUL or end.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// The sum of all bytes, eight at a time.
pub(super) fn sum(block: &Block) -> u32 {
    const LOW: u64 = 0x00ff_00ff_00ff_00ff;
    // Four lanes of 16 bits, each at most 128 * 255.
    let lanes = block.as_chunks::<8>().0.iter().fold(0u64, |lanes, chunk| {
        let word = u64::from_le_bytes(*chunk);
        lanes + (word & LOW) + ((word >> 8) & LOW)
    });
    let [a, b, c, d, e, f, g, h] = lanes.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].into_iter().map(|lane| u32::from(u16::from_le_bytes(lane))).sum()
}

/// Whether the stated sum is right: unsigned, or signed as old Sun tars had it; its own field counts as spaces.
fn sum_is_right(block: &Block, sum: u32) -> bool {
    let stated = field::<148, 8>(block);
    let Some(value) = octal(stated) else { return false };
    let own: u32 = stated.iter().map(|b| u32::from(*b)).sum();
    let unsigned = i64::from(sum) - i64::from(own) + 8 * i64::from(b' ');
    if value == unsigned {
        return true;
    }
    let high = |bytes: &[u8]| i64::try_from(bytes.iter().filter(|b| **b >= 0x80).count()).unwrap_or_default();
    value == unsigned - 256 * (high(block) - high(stated))
}

impl<'b> Header<'b> {
    /// Decodes a block that is not all zeros; `sum` is the [`sum`] of its bytes, `offset` for errors.
    ///
    /// # Errors
    /// [`TarError::Checksum`], [`TarError::Number`].
    pub(super) fn parse(block: &'b Block, sum: u32, offset: u64) -> Result<Self, TarError> {
        if !sum_is_right(block, sum) {
            return Err(TarError::Checksum { offset });
        }
        let number = |field: &'static str, bytes: &[u8]| {
            numeric(bytes).ok_or_else(|| TarError::Number { offset, field, value: show(bytes) })
        };
        let mut header = Self {
            typeflag: block.get(156).copied().unwrap_or_default(),
            prefix: &[],
            name: text(field::<0, 100>(block)),
            link: text(field::<157, 100>(block)),
            size: number("size", field::<124, 12>(block))?,
            mode: number("mode", field::<100, 8>(block))?,
            uid: number("uid", field::<108, 8>(block))?,
            gid: number("gid", field::<116, 8>(block))?,
            mtime: number("mtime", field::<136, 12>(block))?,
            major: 0,
            minor: 0,
            gnu: false,
        };
        let magic = field::<257, 8>(block);
        let ustar = magic.starts_with(b"ustar\0");
        header.gnu = magic == b"ustar  \0";
        if !ustar && !header.gnu {
            return Ok(header); // v7 ends here
        }
        header.major = number("devmajor", field::<329, 8>(block))?;
        header.minor = number("devminor", field::<337, 8>(block))?;
        if header.gnu {
            // Old Go writers put a ustar prefix where GNU keeps two times: taken where those are no numbers.
            let times = [field::<345, 12>(block), field::<357, 12>(block)];
            let prefix = text(field::<345, 155>(block));
            if times.into_iter().any(|time| time.first() != Some(&0) && numeric(time).is_none()) && prefix.is_ascii() {
                header.prefix = prefix;
            }
        } else if field::<508, 4>(block) == b"tar\0" {
            header.prefix = text(field::<345, 131>(block)); // star keeps times behind a shorter prefix
            number("atime", field::<476, 12>(block))?;
            number("ctime", field::<488, 12>(block))?;
        } else {
            header.prefix = text(field::<345, 155>(block));
        }
        Ok(header)
    }
}

/// The old GNU sparse map in the header: 4 pairs of 12-byte offset and length, then whether blocks with more
/// pairs follow.
pub(super) fn gnu_sparse_map(block: &Block) -> (&[u8; 96], bool) {
    (field::<386, 96>(block), block.get(482).is_some_and(|b| *b != 0))
}

/// The old GNU sparse file's size when unpacked.
pub(super) fn gnu_real_size(block: &Block) -> &[u8; 12] {
    field::<483, 12>(block)
}

/// A block of the old GNU sparse map: 21 pairs, then whether another block follows.
pub(super) fn gnu_sparse_block(block: &Block) -> (&[u8; 504], bool) {
    (field::<0, 504>(block), block.get(504).is_some_and(|b| *b != 0))
}
