//! The block image that carries initdata: `initdata`, the length of what follows as u64 little-endian, that many
//! bytes of gzip, padding to 512 (kata-containers 4.1.0).

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use super::MAX_TEXT;

/// The longest gzip member that is read, in bytes.
pub const MAX_IMAGE: u64 = 1024 * 1024;

pub(super) const MAGIC: [u8; 8] = *b"initdata";

/// The text a device carries; `None` when it does not begin as an initdata image does.
///
/// # Errors
/// The image is cut, too long, no gzip, or no UTF-8; or the device cannot be read.
pub(super) fn read(device: &mut impl Read) -> io::Result<Option<String>> {
    let mut magic = [0; 8];
    match device.read_exact(&mut magic) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if magic != MAGIC {
        return Ok(None);
    }
    let mut length = [0; 8];
    device.read_exact(&mut length).map_err(|_| invalid("cut off in its length"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_IMAGE {
        return Err(invalid("longer than 1 MiB"));
    }
    let mut compressed = Vec::new();
    device.take(length).read_to_end(&mut compressed)?;
    if compressed.len() as u64 != length {
        return Err(invalid("shorter than its length says"));
    }
    let mut gzip = GzDecoder::new(compressed.as_slice());
    let mut bytes = Vec::new();
    (&mut gzip).take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes).map_err(|_| invalid("not gzip"))?;
    if bytes.len() > MAX_TEXT {
        return Err(invalid("longer than 1 MiB when unpacked"));
    }
    // A second member, or anything else behind the first, would be bytes that no digest covers.
    if !gzip.into_inner().is_empty() {
        return Err(invalid("followed by other bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| invalid("not UTF-8"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write as _;

    pub(in super::super) fn image(text: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text).unwrap();
        frame(&gzip.finish().unwrap())
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut image = MAGIC.to_vec();
        image.extend((payload.len() as u64).to_le_bytes());
        image.extend(payload);
        image.resize(image.len().next_multiple_of(512), 0);
        image
    }

    #[test]
    fn an_image_gives_its_text_and_other_devices_give_nothing() {
        assert_eq!(read(&mut image(b"hello").as_slice()).unwrap().as_deref(), Some("hello"));
        assert_eq!(read(&mut [0u8; 4096].as_slice()).unwrap(), None);
        assert_eq!(read(&mut b"init".as_slice()).unwrap(), None);
    }

    #[test]
    fn images_that_are_not_what_they_say_are_refused() {
        let whole = image(b"hello");
        let mut cut = whole.clone();
        cut.truncate(20);
        let mut long = whole.clone();
        long.splice(8..16, (MAX_IMAGE + 1).to_le_bytes());
        let mut beyond = whole.clone();
        beyond.splice(8..16, 100_000u64.to_le_bytes());
        let bomb = image(&vec![b' '; MAX_TEXT + 1]);
        let mut two = Vec::new();
        for part in [b"one", b"two"] {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(part).unwrap();
            two.extend(gzip.finish().unwrap());
        }
        for (case, bytes) in [
            ("cut", cut),
            ("length above the limit", long),
            ("length beyond the device", beyond),
            ("bomb", bomb),
            ("no gzip", frame(b"plain text")),
            ("second member", frame(&two)),
            ("no UTF-8", image(&[0xff, 0xfe])),
        ] {
            assert!(read(&mut bytes.as_slice()).is_err(), "{case}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_behind_the_magic_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut image = MAGIC.to_vec();
            image.extend(bytes);
            let _ = read(&mut image.as_slice());
        }
    }
}
