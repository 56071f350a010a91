//! The directory of one installation.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use p384::ecdsa::SigningKey;
use p384::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _};
use x509_cert::Certificate;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode as _, DecodePem as _, Encode as _, EncodePem as _};

use crate::certificates::{self, Made};
use crate::{Chip, SimulatedError};

const ARK: &str = "ark.pem";
const ASK: &str = "ask.pem";
const VCEK: &str = "vcek.pem";
const KEY: &str = "vcek.key";

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), SimulatedError> {
    getrandom::fill(bytes).map_err(|error| SimulatedError::Make(error.to_string()))
}

pub(crate) fn failed(path: PathBuf) -> impl FnOnce(std::io::Error) -> SimulatedError {
    move |source| SimulatedError::File { path, source }
}

/// Fails before seconds are spent on keys that could not be stored.
pub(crate) fn refuse_existing(dir: &Path) -> Result<(), SimulatedError> {
    refuse_names(dir, &[ARK, ASK, VCEK, KEY])
}

pub(crate) fn refuse_names(dir: &Path, names: &[&str]) -> Result<(), SimulatedError> {
    for name in names {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(failed(path)(std::io::ErrorKind::AlreadyExists.into()));
        }
    }
    Ok(())
}

pub(crate) fn write(dir: &Path, made: &Made) -> Result<(), SimulatedError> {
    fs::create_dir_all(dir).map_err(failed(dir.to_owned()))?;
    let key = made.key.to_pkcs8_pem(LineEnding::LF).map_err(|error| SimulatedError::Make(error.to_string()))?;
    write_new(&dir.join(KEY), 0o600, key.as_bytes())?;
    for (name, der) in [(ARK, &made.ark), (ASK, &made.ask), (VCEK, &made.vcek)] {
        let pem = Certificate::from_der(der)?.to_pem(LineEnding::LF)?;
        write_new(&dir.join(name), 0o644, pem.as_bytes())?;
    }
    Ok(())
}

pub(crate) fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), SimulatedError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(failed(path.to_owned()))
}

pub(crate) fn read(dir: &Path) -> Result<(Made, Chip), SimulatedError> {
    let text = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).map_err(failed(path))
    };
    let refused = |name: &str, what| SimulatedError::Malformed { path: dir.join(name), what };
    let certificate = |name: &str| {
        let certificate = Certificate::from_pem(text(name)?).map_err(|_| refused(name, "not a certificate"))?;
        if !certificates::is_simulated(&certificate) {
            return Err(refused(name, "the subject does not say O=SIMULATED"));
        }
        Ok(certificate)
    };
    let vcek = certificate(VCEK)?;
    let chip = certificates::chip(&vcek).ok_or_else(|| refused(VCEK, "it does not name a chip"))?;
    let key = SigningKey::from_pkcs8_pem(&text(KEY)?).map_err(|_| refused(KEY, "not a P-384 private key"))?;
    let named = vcek.tbs_certificate().subject_public_key_info().to_der()?;
    if p384::ecdsa::VerifyingKey::from_public_key_der(&named).ok() != Some(*key.verifying_key()) {
        return Err(refused(KEY, "not the VCEK's key"));
    }
    let made = Made { ark: certificate(ARK)?.to_der()?, ask: certificate(ASK)?.to_der()?, vcek: vcek.to_der()?, key };
    Ok((made, chip))
}
