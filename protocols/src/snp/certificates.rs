//! The certificate table that a host gives with a report (GHCB specification, SNP extended guest request):
//! `{guid 16, offset u32, size u32}` per entry, a zero entry, then the certificates. Integers are little-endian.

use crate::kbs::SnpCertificate;

/// Size of one entry in bytes.
const ENTRY: usize = 24;
/// The most entries that are read.
const MAX_ENTRIES: usize = 16;
/// What a table's entries may be; others are left out.
const KINDS: [([u8; 16], &str); 4] = [
    (guid(0x63da_758d_e664_4564_adc5_f4b9_3be8_accd), "VCEK"),
    (guid(0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1), "VLEK"),
    (guid(0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782), "ASK"),
    (guid(0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae), "ARK"),
];

const fn guid(number: u128) -> [u8; 16] {
    number.to_be_bytes()
}

/// Bytes that are no certificate table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate table: {0}")]
pub struct CertificateTableError(&'static str);

/// Reads a table. An empty one is no certificates: a host need not give any.
///
/// # Errors
/// [`CertificateTableError`] for a table without an end, with more than 16 entries, or with one that reaches outside.
pub fn read_certificates(table: &[u8]) -> Result<Vec<SnpCertificate>, CertificateTableError> {
    let mut found = Vec::new();
    if table.is_empty() {
        return Ok(found);
    }
    let mut rest = table;
    for _ in 0..=MAX_ENTRIES {
        let (entry, after) = rest.split_first_chunk::<ENTRY>().ok_or(CertificateTableError("it has no end"))?;
        rest = after;
        if *entry == [0; ENTRY] {
            return Ok(found);
        }
        let (id, numbers) = entry.split_at(16);
        let (offset, size) = numbers.split_at(4);
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
            usize::try_from(bytes).unwrap_or(usize::MAX)
        };
        let data = table.get(number(offset)..).and_then(|from| from.get(..number(size)));
        let data = data.ok_or(CertificateTableError("an entry reaches outside of it"))?;
        if let Some((_, kind)) = KINDS.iter().find(|(known, _)| known == id) {
            found.push(SnpCertificate { cert_type: (*kind).to_owned(), data: data.to_vec() });
        }
    }
    Err(CertificateTableError("it has too many entries"))
}

/// Writes a table as a host gives it, for simulations; kinds without a GUID are left out.
#[must_use]
pub fn write_certificates(certificates: &[SnpCertificate]) -> Vec<u8> {
    let known: Vec<([u8; 16], &[u8])> = certificates
        .iter()
        .filter_map(|entry| {
            let (id, _) = KINDS.iter().find(|(_, kind)| *kind == entry.cert_type)?;
            Some((*id, entry.data.as_slice()))
        })
        .collect();
    let mut offset = (known.len() + 1) * ENTRY;
    let mut table = Vec::new();
    for (id, data) in &known {
        table.extend_from_slice(id);
        for number in [offset, data.len()] {
            table.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        offset += data.len();
    }
    table.extend_from_slice(&[0; ENTRY]);
    table.extend(known.iter().flat_map(|(_, data)| data.iter()));
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(kind: &str, data: &[u8]) -> SnpCertificate {
        SnpCertificate { cert_type: kind.to_owned(), data: data.to_vec() }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let entries = [entry("VCEK", b"one"), entry("ASK", b""), entry("ARK", b"three"), entry("VLEK", &[7; 5000])];
        let mut table = write_certificates(&entries);
        assert_eq!(read_certificates(&table).unwrap(), entries);
        assert_eq!(table[..4], [0x63, 0xda, 0x75, 0x8d], "GUIDs are big-endian");
        table.resize(16384, 0);
        assert_eq!(read_certificates(&table).unwrap(), entries, "the host's pages");
        assert_eq!(read_certificates(&[]).unwrap(), []);
        assert_eq!(read_certificates(&[0; 4096]).unwrap(), []);
        table[0] ^= 1;
        assert_eq!(read_certificates(&table).unwrap(), entries[1..], "an unknown kind");
    }

    #[test]
    fn a_table_that_reaches_outside_itself_is_refused() {
        let table = write_certificates(&[entry("VCEK", b"one")]);
        for length in 1..table.len() {
            assert!(read_certificates(&table[..length]).is_err(), "{length}");
        }
        for place in 16..24 {
            let mut wrong = table.clone();
            wrong[place] = 0xFF;
            assert!(read_certificates(&wrong).is_err(), "{place}");
        }
        read_certificates(&[1; 24 * 40]).unwrap_err();
        let many = write_certificates(&vec![entry("VCEK", b""); 17]);
        read_certificates(&many).unwrap_err();
        read_certificates(&write_certificates(&vec![entry("VCEK", b""); 16])).unwrap();
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_certificates(&bytes);
        }
    }
}
