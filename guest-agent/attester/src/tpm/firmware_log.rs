//! The firmware's own log, read only to learn what a PCR must hold before the first record of ours.

use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use protocols::register::{HashAlg, RegisterValue};
use protocols::tcg_log::{TcgLog, TcgLogError};

/// Where the kernel keeps the log of `/dev/tpmN` or `/dev/tpmrmN`.
pub(crate) fn path_of(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?.to_str()?;
    let number = name.strip_prefix("tpmrm").or_else(|| name.strip_prefix("tpm"))?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| PathBuf::from(format!("/sys/kernel/security/tpm{number}/binary_bios_measurements")))
}

/// The value of SHA-256 PCR `pcr` after all events of the log.
///
/// # Errors
/// [`TcgLogError`] when the log is not well formed or has no SHA-256 digests.
pub(crate) fn replay_sha256(log: &[u8], pcr: u32) -> Result<Sha256Digest, TcgLogError> {
    match TcgLog::parse(log)?.replay(pcr, HashAlg::Sha256)? {
        RegisterValue::Sha256(value) => Ok(value),
        RegisterValue::Sha384(_) => Err(TcgLogError("a digest of another length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tpm_devices_have_a_log() {
        let path = Path::new("/sys/kernel/security/tpm0/binary_bios_measurements");
        for device in ["/dev/tpm0", "/dev/tpmrm0"] {
            assert_eq!(path_of(Path::new(device)).as_deref(), Some(path));
        }
        for device in ["/dev/tpm", "/dev/tpmrm", "/dev/tpmx", "/dev/null", "/dev/tpm0/.."] {
            assert_eq!(path_of(Path::new(device)), None, "{device}");
        }
    }
}
