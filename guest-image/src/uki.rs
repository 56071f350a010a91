//! A unified kernel image: kernel, initrd and command line as sections behind `systemd-stub`, one program that firmware
//! starts and measures. The format is PE32+: Microsoft's "PE Format"; the sections are those of the UAPI group's
//! "Unified Kernel Image".

use crate::error::ImageError;

/// Bytes in an entry of the section table.
const ENTRY: usize = 40;
/// Both alignments of what is added: pages in memory, sectors in the file.
const PAGE: usize = 4096;
const SECTOR: usize = 512;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const DATA: u32 = 0x4000_0040;

/// Adds sections, in this order, to a stub.
///
/// # Errors
/// The stub is no PE32+ image, or has no room for so many entries in its section table.
pub(crate) fn write(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, ImageError> {
    built(stub, sections).ok_or_else(|| ImageError::input("the stub", "no PE32+ image with room for more sections"))
}

fn built(stub: &[u8], sections: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let pe = usize::try_from(number(stub, 0x3c)?).ok()?;
    let optional = pe + 24;
    if stub.get(pe..pe + 4)? != b"PE\0\0" || stub.get(optional..optional + 2)? != [0x0b, 0x02] {
        return None;
    }
    let count = usize::from(u16::from_le_bytes(*stub.get(pe + 6..)?.first_chunk()?));
    let optional_size = usize::from(u16::from_le_bytes(*stub.get(pe + 20..)?.first_chunk()?));
    let table = optional + optional_size;
    let headers = usize::try_from(number(stub, optional + 60)?).ok()?;
    let end = table + (count + sections.len()) * ENTRY;
    // What is there between the table and the first section must be room.
    if end > headers || stub.get(table + count * ENTRY..end)?.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut image = stub.to_vec();
    let mut memory = usize::try_from(number(stub, optional + 56)?).ok()?;
    let mut entry = table + count * ENTRY;
    for (name, content) in sections {
        memory = memory.next_multiple_of(PAGE);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
        let start = image.len();
        image.extend(*content);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
        let mut field = [0; ENTRY];
        field.get_mut(..name.len().min(8))?.copy_from_slice(name.as_bytes());
        let sizes = [content.len(), memory, image.len() - start, start];
        for (place, size) in sizes.into_iter().enumerate() {
            put(&mut field, 8 + 4 * place, u32::try_from(size).ok()?)?;
        }
        put(&mut field, 36, DATA)?;
        image.get_mut(entry..entry + ENTRY)?.copy_from_slice(&field);
        entry += ENTRY;
        memory += content.len();
    }
    let total = u16::try_from(count + sections.len()).ok()?;
    image.get_mut(pe + 6..pe + 8)?.copy_from_slice(&total.to_le_bytes());
    let alignment = usize::try_from(number(stub, optional + 32)?).ok()?.max(1);
    put(&mut image, optional + 56, u32::try_from(memory.next_multiple_of(alignment)).ok()?)?;
    // Firmware looks at no checksum, and Authenticode leaves it out.
    put(&mut image, optional + 64, 0)?;
    Some(image)
}

fn number(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(place..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], place: usize, value: u32) -> Option<()> {
    bytes.get_mut(place..place + 4)?.copy_from_slice(&value.to_le_bytes());
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use goblin::pe::PE;

    use super::*;

    /// A PE32+ image with one section of 16 bytes.
    fn stub() -> Vec<u8> {
        let mut stub = vec![0; 1024 + 16];
        stub[..2].copy_from_slice(b"MZ");
        stub[0x3c] = 0x80;
        stub[0x80..0x84].copy_from_slice(b"PE\0\0");
        stub[0x84..0x8c].copy_from_slice(&[0x64, 0x86, 1, 0, 0, 0, 0, 0]);
        stub[0x94] = 240;
        let optional = 0x98;
        stub[optional..optional + 2].copy_from_slice(&[0x0b, 0x02]);
        for (place, value) in [(32, 512), (36, 512), (56, 0x1200), (60, 1024), (64, 0xdead), (108, 16)] {
            put(&mut stub, optional + place, value).unwrap();
        }
        let table = optional + 240;
        stub[table..table + 5].copy_from_slice(b".text");
        for (place, value) in [(8, 16), (12, 0x1000), (16, 16), (20, 1024)] {
            put(&mut stub, table + place, value).unwrap();
        }
        stub
    }

    #[test]
    fn sections_are_where_the_table_says_and_firmware_loads_all_of_them() {
        let sections: [(&str, &[u8]); 2] = [(".cmdline", b"quiet"), (".linux", &[7; 5000])];
        let image = write(&stub(), &sections).unwrap();
        let pe = PE::parse(&image).unwrap();
        assert_eq!(pe.sections.len(), 3);
        for ((name, content), section) in sections.iter().zip(&pe.sections[1..]) {
            assert_eq!(section.name().unwrap(), *name);
            let start = section.pointer_to_raw_data as usize;
            assert_eq!(&image[start..start + section.virtual_size as usize], *content);
            assert_eq!((start % 512, section.virtual_address % 4096), (0, 0));
        }
        let last = &pe.sections[2];
        let size = pe.header.optional_header.unwrap().windows_fields.size_of_image;
        assert!(size >= last.virtual_address + last.virtual_size && size.is_multiple_of(512));
    }

    #[test]
    fn a_stub_without_room_is_refused() {
        let many: Vec<(&str, &[u8])> = vec![(".x", b"x"); 20];
        assert!(write(&stub(), &many).is_err());
        assert!(write(&stub()[..0x90], &many[..1]).is_err());
        assert!(write(b"MZ", &many[..1]).is_err());
    }
}
