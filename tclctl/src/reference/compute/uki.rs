//! PCRs 4, 9 and 11 of a UKI that EDK2's firmware starts from its boot option, without shim or boot menu, and that
//! `systemd-stub` runs with all it needs inside: no file, credential, addon or command line beside it.
//!
//! | PCR | extended by | with SHA-256 of |
//! |---|---|---|
//! | 4 | firmware | `Calling EFI Application from Boot Option`; a separator; the UKI, by Authenticode; the kernel within, likewise |
//! | 9 | the kernel's EFI stub | the command line in UTF-16 with a zero; the initrd |
//! | 11 | `systemd-stub` | each measured section that is there, in its order: its name with a zero byte, then its content |
//!
//! Seen with Debian 12's OVMF, `systemd-stub` 252 and kernel 6.1. Stubs differ in which sections they measure, and in
//! whether the firmware loads the kernel for them; older kernels do not measure the command line, or the initrd either.

use goblin::pe::PE;
use goblin::pe::options::{ParseMode, ParseOptions};
use protocols::digest::Sha256Digest;

/// Sections that `systemd-stub` measures, in its order. `.pcrsig` signs the outcome and is not among them.
const MEASURED: [&str; 7] = [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];
/// Sections that later stubs measure or choose among, so that what is computed here would not hold.
const UNKNOWN: [&str; 6] = [".ucode", ".uname", ".profile", ".dtbauto", ".hwids", ".efifw"];
/// What firmware says before it starts what a boot option names.
const CALLING: &[u8] = b"Calling EFI Application from Boot Option";
/// The separator's four bytes.
const SEPARATOR: [u8; 4] = [0; 4];

/// The PCRs by number.
pub(super) fn pcrs(uki: &[u8]) -> Result<Vec<(u32, Sha256Digest)>, String> {
    let image = parse(uki)?;
    let kernel = section(&image, uki, ".linux")?.ok_or("no UKI: it has no section .linux")?;
    let initrd = section(&image, uki, ".initrd")?.ok_or("it has no section .initrd")?;
    let cmdline = section(&image, uki, ".cmdline")?.ok_or("it has no section .cmdline")?;
    for name in UNKNOWN {
        if section(&image, uki, name)?.is_some() {
            return Err(format!("its section {name} is measured in ways that are not computed here"));
        }
    }
    let boot =
        [Sha256Digest::of(CALLING), Sha256Digest::of(&SEPARATOR), authenticode(&image), authenticode(&parse(kernel)?)];
    let mut sections = Vec::new();
    for name in MEASURED {
        if let Some(content) = section(&image, uki, name)? {
            sections.push(Sha256Digest::of_parts(&[name.as_bytes(), &[0]]));
            sections.push(Sha256Digest::of(content));
        }
    }
    let options = [Sha256Digest::of(&options(cmdline)?), Sha256Digest::of(initrd)];
    Ok(vec![(4, extended(&boot)), (9, extended(&options)), (11, extended(&sections))])
}

fn parse(bytes: &[u8]) -> Result<PE<'_>, String> {
    // Neither imports nor debug data matter here, and kernels have odd ones.
    let mut options = ParseOptions::default().with_parse_mode(ParseMode::Strict);
    options.resolve_rva = false;
    PE::parse_with_opts(bytes, &options).map_err(|error| format!("no PE image: {error}"))
}

/// A section's content as it stands in memory: as long as it says, never longer than the file's part.
fn section<'b>(image: &PE<'_>, bytes: &'b [u8], name: &str) -> Result<Option<&'b [u8]>, String> {
    let mut found = image.sections.iter().filter(|section| section.name().is_ok_and(|known| known == name));
    let Some(section) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(format!("it has two sections {name}"));
    }
    if section.virtual_size > section.size_of_raw_data {
        return Err(format!("its section {name} is longer in memory than in the file"));
    }
    let start = usize::try_from(section.pointer_to_raw_data).ok();
    let size = usize::try_from(section.virtual_size).ok();
    let content = start.zip(size).and_then(|(start, size)| bytes.get(start..start.checked_add(size)?));
    content.map(Some).ok_or_else(|| format!("its section {name} is outside the file"))
}

/// The command line as the kernel is given it. Stubs change others than these in ways of their own.
fn options(cmdline: &[u8]) -> Result<Vec<u8>, String> {
    let plain = cmdline.iter().all(|byte| (0x20..=0x7E).contains(byte)) && cmdline.trim_ascii() == cmdline;
    if !plain {
        return Err("its command line is not printable ASCII without white space at its ends".to_owned());
    }
    Ok(cmdline.iter().chain(&[0]).flat_map(|byte| [*byte, 0]).collect())
}

fn authenticode(image: &PE<'_>) -> Sha256Digest {
    let parts: Vec<&[u8]> = image.authenticode_ranges().collect();
    Sha256Digest::of_parts(&parts)
}

/// A PCR that began at zero.
fn extended(digests: &[Sha256Digest]) -> Sha256Digest {
    let zero = Sha256Digest::new([0; 32]);
    digests.iter().fold(zero, |pcr, digest| Sha256Digest::of_parts(&[pcr.as_bytes(), digest.as_bytes()]))
}
