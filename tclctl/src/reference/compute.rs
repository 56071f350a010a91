//! `reference compute snp | tpm`: what a platform will measure of files, as values to be signed.

mod uki;

use std::collections::BTreeMap;

use reference_values::{References, names};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};

use crate::cli::{ComputeCommand, ComputeSnpArguments, ComputeTpmArguments};
use crate::files::read;
use crate::outcome::Failure;
use crate::output::Output;

/// The most virtual processors of a guest.
const MAX_VCPUS: u32 = 4096;
/// Firmware is measured by pages of so many bytes.
const PAGE: u64 = 4096;
/// The largest UKI, in bytes.
const MAX_UKI: u64 = 1024 * 1024 * 1024;

/// Prints the values as JSON, as `reference sign` takes them.
pub(crate) fn compute(command: &ComputeCommand, output: &Output) -> Result<(), Failure> {
    let values = match command {
        ComputeCommand::Snp(arguments) => snp(arguments)?,
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

fn snp(arguments: &ComputeSnpArguments) -> Result<BTreeMap<String, String>, Failure> {
    if !(1..=MAX_VCPUS).contains(&arguments.vcpus) {
        return Err(Failure::Usage(format!("--vcpus must be from 1 to {MAX_VCPUS}")));
    }
    let vcpu_type = CpuType::try_from(arguments.vcpu_type.as_str())
        .map_err(|_| Failure::Usage(format!("--vcpu-type {}: not a processor type of QEMU's", arguments.vcpu_type)))?;
    // The crate that computes would cut it, and the hypervisor would not.
    if arguments.cmdline.as_deref().is_some_and(|line| line.trim() != line) {
        return Err(Failure::Usage("--cmdline begins or ends with white space".to_owned()));
    }
    let files = [Some(&arguments.ovmf), arguments.kernel.as_ref(), arguments.initrd.as_ref()];
    for path in files.into_iter().flatten() {
        std::fs::File::open(path).map_err(|error| Failure::file(path, error))?;
    }
    // The crate that computes reads tables at the end without looking for room.
    let length = std::fs::metadata(&arguments.ovmf).map_err(|error| Failure::file(&arguments.ovmf, error))?.len();
    if length == 0 || length % PAGE != 0 {
        return Err(Failure::Usage(format!("{}: no firmware: not whole pages", arguments.ovmf.display())));
    }
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus: arguments.vcpus,
        vcpu_type,
        ovmf_file: arguments.ovmf.clone(),
        guest_features: GuestFeatures(arguments.guest_features),
        kernel_file: arguments.kernel.clone(),
        initrd_file: arguments.initrd.clone(),
        append: arguments.cmdline.as_deref(),
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    });
    let digest: Vec<u8> = digest
        .and_then(TryInto::try_into)
        .map_err(|error| Failure::Usage(format!("{}: {error}", arguments.ovmf.display())))?;
    Ok([(names::SNP.to_owned(), hex::encode(digest))].into())
}

fn tpm(arguments: &ComputeTpmArguments) -> Result<BTreeMap<String, String>, Failure> {
    let bytes = read(&arguments.uki, MAX_UKI)?;
    let pcrs = uki::pcrs(&bytes).map_err(|what| Failure::Usage(format!("{}: {what}", arguments.uki.display())))?;
    Ok(pcrs.into_iter().map(|(number, value)| (names::pcr(number), value.hex())).collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/vectors")).join(name)
    }

    fn arguments(vcpus: u32, vcpu_type: &str, guest_features: u64) -> ComputeSnpArguments {
        ComputeSnpArguments {
            ovmf: file("snp-launch/firmware.fd"),
            kernel: None,
            initrd: None,
            cmdline: None,
            vcpus,
            vcpu_type: vcpu_type.into(),
            guest_features,
        }
    }

    /// `tests/data/vectors/snp-launch/README.md` says whose measurements these are.
    #[test]
    fn a_launch_is_measured_as_another_program_does() {
        let kernel = |arguments| ComputeSnpArguments { kernel: Some(file("snp-launch/kernel")), ..arguments };
        let whole = |arguments| ComputeSnpArguments {
            initrd: Some(file("snp-launch/initrd")),
            cmdline: Some("console=ttyS0 panic=-1".into()),
            ..kernel(arguments)
        };
        let small = || arguments(2, "EPYC-v4", 0x1);
        let milan = || arguments(4, "EPYC-Milan", 0x21);
        for (arguments, expected) in [
            (
                small(),
                "13de54d0c6cb3e8c5aad4d1255a89226b6647778936b85567532e3877793930acdea5e52811ef7cafdea8c1b1b79284d",
            ),
            (
                kernel(small()),
                "17cbcc1442061cb4b899cbe9a880bfe816d1c7deac0d84d523f8d4ffa5f7586ecde6a5efec5fef4faaca158506a7a7be",
            ),
            (
                whole(small()),
                "e305e0c25625b4a2fdb5e8f487691db01b45e4794b2ed063f7b8612e56d5a2278abd23a364d957f96694a6a275997512",
            ),
            (
                milan(),
                "0a1db3803ecba8f56e80b813cf5fda21e3f58097547fe0d8718879a1baefdd6a39362ac4697d37b66776ad9f097e7c70",
            ),
            (
                kernel(milan()),
                "ad26b60c3ec22a884d5f6315d941e564dbb5cbede654da32782706b528e889175601c7beaa02269bb5999058d59b0833",
            ),
            (
                whole(milan()),
                "e34c2eb1f8ad14fad6f19ed17e8a52ccad2f09e762746cdc43b5bb04c9cc40cd147559c1421ab76219444ae7f7750092",
            ),
            (
                arguments(64, "EPYC-Genoa", 0x1),
                "4d2fe28e9eec1258b0295e7b85014eedd9fab6664af401ea47ed847955ab41428eb349f7cd8d801b32c83b0d324d061f",
            ),
        ] {
            assert_eq!(snp(&arguments).unwrap(), [("snp.measurement".to_owned(), expected.to_owned())].into());
        }
    }

    #[test]
    fn what_cannot_be_measured_is_told_and_nothing_is_cut() {
        let status = |arguments: &ComputeSnpArguments| snp(arguments).unwrap_err().status();
        let kernel = ComputeSnpArguments { kernel: Some(file("snp-launch/kernel")), ..arguments(1, "EPYC-v4", 1) };
        assert_eq!(status(&arguments(0, "EPYC-v4", 1)), 64);
        assert_eq!(status(&arguments(1, "Opteron", 1)), 64);
        assert_eq!(status(&ComputeSnpArguments { cmdline: Some("quiet ".into()), ..kernel }), 64);
        assert_eq!(status(&ComputeSnpArguments { ovmf: file("snp-launch/kernel"), ..arguments(1, "EPYC-v4", 1) }), 64);
        let empty = tempfile::NamedTempFile::new().unwrap();
        for bytes in [vec![], vec![0; 4096], vec![0xFF; 4096]] {
            std::fs::write(empty.path(), bytes).unwrap();
            let ovmf = empty.path().to_owned();
            assert_eq!(status(&ComputeSnpArguments { ovmf, ..arguments(1, "EPYC-v4", 1) }), 64);
        }
        assert_eq!(status(&ComputeSnpArguments { ovmf: file("snp-launch/none"), ..arguments(1, "EPYC-v4", 1) }), 74);
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
