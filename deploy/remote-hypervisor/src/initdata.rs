//! The disk that carries a pod's initdata: `initdata`, the length of what follows as u64 little-endian, gzip, padding to
//! 512 bytes.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// The pod's annotation. The shim gives it on decoded: the initdata's text.
pub(crate) const ANNOTATION: &str = "io.katacontainers.config.hypervisor.cc_init_data";

/// Writes the disk for a text.
pub(crate) fn write(text: &str, to: &Path) -> std::io::Result<()> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes())?;
    let gzip = gzip.finish()?;
    let mut disk = b"initdata".to_vec();
    disk.extend((gzip.len() as u64).to_le_bytes());
    disk.extend(gzip);
    disk.resize(disk.len().next_multiple_of(512), 0);
    std::fs::write(to, disk)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_disk_is_whole_sectors_of_magic_length_and_gzip() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        write("version = \"0.1.0\"\n", &file).unwrap();
        let disk = std::fs::read(file).unwrap();
        assert_eq!(disk.len() % 512, 0);
        let (head, rest) = disk.split_at(16);
        assert_eq!(&head[..8], b"initdata");
        let length = u64::from_le_bytes(head[8..].try_into().unwrap());
        let mut text = String::new();
        let gzip = rest.get(..usize::try_from(length).unwrap()).unwrap();
        flate2::read::GzDecoder::new(gzip).read_to_string(&mut text).unwrap();
        assert_eq!(text, "version = \"0.1.0\"\n");
    }
}
