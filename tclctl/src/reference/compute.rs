//! `reference compute tpm`: what a platform will measure of files, as values to be signed.

mod uki;

use std::collections::BTreeMap;
use std::path::Path;

use reference_values::{References, names};

use crate::cli::{ComputeCommand, ComputeTpmArguments};
use crate::outcome::Failure;
use crate::output::Output;

/// The largest UKI, in bytes.
const MAX_UKI: u64 = 1024 * 1024 * 1024;

/// Prints the values as JSON, as `reference sign` takes them.
pub(crate) fn compute(command: &ComputeCommand, output: &Output) -> Result<(), Failure> {
    let values = match command {
        ComputeCommand::Tpm(arguments) => tpm(arguments)?,
    };
    let mut references = References::default();
    for (name, value) in values {
        references.add(&name, &value).map_err(|error| Failure::Fault(error.to_string()))?;
    }
    let mut text = serde_json::to_vec_pretty(&references).map_err(|error| Failure::Fault(error.to_string()))?;
    text.push(b'\n');
    output.raw(&text)
}

fn tpm(arguments: &ComputeTpmArguments) -> Result<BTreeMap<String, String>, Failure> {
    let bytes = read(&arguments.uki)?;
    let pcrs = uki::pcrs(&bytes).map_err(|what| Failure::Usage(format!("{}: {what}", arguments.uki.display())))?;
    Ok(pcrs.into_iter().map(|(number, value)| (names::pcr(number), value.hex())).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Failure::file(path, error))?;
    file.take(MAX_UKI).read_to_end(&mut bytes).map_err(|error| Failure::file(path, error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/vectors")).join(name)
    }

    /// `tests/data/vectors/uki/README.md` says where these are from.
    #[test]
    fn a_ukis_registers_are_those_of_another_program_and_every_part_is_in_one() {
        let bytes = std::fs::read(file("uki/uki.efi")).unwrap();
        let hex = |pcrs: Vec<(u32, protocols::digest::Sha256Digest)>| {
            pcrs.into_iter().map(|(number, value)| (number, value.hex())).collect::<Vec<_>>()
        };
        let good = hex(uki::pcrs(&bytes).unwrap());
        let expected = [
            (4, "42f6c5116be5bcae7ccf354f13e8a48da20e1249f0eaa39c8fd0246f01e5e89f"),
            (9, "8999005718b0ee2fea469fa384e2833c06bb7a7a650a71abea4d823cabd1f96b"),
            (11, "39091cef7768ca9fe6104c74503c17e6a58f7ac63f5bb9e4018a3c7a5e88d310"),
        ];
        assert_eq!(good.iter().map(|(number, value)| (*number, value.as_str())).collect::<Vec<_>>(), expected);
        // Wherever a byte is changed that runs or is read, some register differs, or nothing is computed.
        let find = |text: &[u8]| bytes.windows(text.len()).position(|part| part == text).unwrap();
        for (text, registers) in [
            (&b"kernel data"[..], &[4, 11][..]),
            (b"console=ttyS0", &[4, 9, 11]),
            (b"an initrd of odd", &[4, 9, 11]),
            (b"ID=example", &[4, 11]),
            (b"\xC3\xC3\xC3", &[4]),
            (b"{}", &[4]),
            // Neither checksum nor signatures are part of what is signed.
            (b"no signature at", &[]),
            (b"\xEF\xBE\xAD\xDE", &[]),
        ] {
            let mut altered = bytes.clone();
            altered[find(text)] ^= 1;
            let changed: Vec<u32> =
                hex(uki::pcrs(&altered).unwrap()).iter().zip(&good).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect();
            assert_eq!(changed, registers, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn no_other_file_is_taken_for_a_uki() {
        let bytes = std::fs::read(file("uki/uki.efi")).unwrap();
        let renamed = |from: &[u8], to: &[u8]| {
            let place = bytes.windows(from.len()).position(|part| part == from).unwrap();
            let mut renamed = bytes.clone();
            renamed[place..place + to.len()].copy_from_slice(to);
            uki::pcrs(&renamed).unwrap_err()
        };
        assert!(renamed(b".linux\0", b".linus\0").contains(".linux"));
        assert!(renamed(b".initrd", b".initrx").contains(".initrd"));
        assert!(renamed(b".osrel\0", b".linux\0").contains("two sections"));
        assert!(renamed(b".osrel\0", b".ucode\0").contains(".ucode"));
        assert!(renamed(b"console=", b"console\n").contains("command line"));
        for length in 0..bytes.len() {
            // A cut file is no UKI, or one whose parts are all there.
            if let Ok(pcrs) = uki::pcrs(&bytes[..length]) {
                assert!(length > bytes.len() - 24, "{length}: {pcrs:?}");
            }
        }
        assert!(uki::pcrs(b"MZ").is_err() && uki::pcrs(b"").is_err());
    }
}
