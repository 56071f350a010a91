//! The directory of one installation.

use std::fs;
use std::path::Path;

use p256::ecdsa::SigningKey;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use protocols::tdx::{PckChain, Quote};
use protocols::time::Timestamp;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::{CollateralFacts, Params, Platform};
use crate::certificates::is_simulated;
use crate::files::{failed, refuse_names, write_new};
use crate::{SimulatedError, tdx};

const ROOT: &str = "tdx-root.pem";
const CHAIN: &str = "tdx-pck.pem";
const COLLATERAL: &str = "tdx-collateral.json";
const PCK_KEY: &str = "tdx-pck.key";
const ATTESTATION_KEY: &str = "tdx-attestation.key";

/// Certificates as PEM.
pub(super) fn pem(ders: &[Vec<u8>]) -> String {
    PckChain::new(ders.to_vec(), false)
        .map_or_else(|_| String::new(), |chain| String::from_utf8_lossy(&chain.encode()).into_owned())
}

/// A simulated platform as an attester uses it: it can quote, and no more.
pub struct Machine {
    pck: SigningKey,
    attestation: SigningKey,
    chain: PckChain,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Machine {
    /// Makes a new platform in `dir`; the keys of its authorities are used once and dropped.
    ///
    /// # Errors
    /// [`SimulatedError`] when `dir` holds one already or cannot be written.
    pub fn create(dir: &Path) -> Result<Self, SimulatedError> {
        refuse_names(dir, &[ROOT, CHAIN, COLLATERAL, PCK_KEY, ATTESTATION_KEY])?;
        let now = Timestamp::now();
        let platform = Platform::new(now)?;
        fs::create_dir_all(dir).map_err(failed(dir.to_owned()))?;
        for (name, key) in [(PCK_KEY, &platform.keys.pck), (ATTESTATION_KEY, &platform.keys.attestation)] {
            let key = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| SimulatedError::Make(error.to_string()))?;
            write_new(&dir.join(name), 0o600, key.as_bytes())?;
        }
        let collateral = platform.collateral(&CollateralFacts::new(&platform, now));
        for (name, text) in
            [(ROOT, pem(&[platform.root_der()])), (CHAIN, pem(&platform.chain())), (COLLATERAL, collateral)]
        {
            write_new(&dir.join(name), 0o644, text.as_bytes())?;
        }
        Self::open(dir)
    }

    /// Reads the platform of `dir`.
    ///
    /// # Errors
    /// [`SimulatedError`] when a file is missing or not what [`Machine::create`] writes.
    pub fn open(dir: &Path) -> Result<Self, SimulatedError> {
        let text = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(failed(path))
        };
        let refused = |name: &str, what| SimulatedError::Malformed { path: dir.join(name), what };
        let chain = PckChain::parse(text(CHAIN)?.as_bytes()).map_err(|_| refused(CHAIN, "not a PCK chain"))?;
        let pck = Certificate::from_der(chain.pck()).map_err(|_| refused(CHAIN, "not a certificate"))?;
        if !is_simulated(&pck) {
            return Err(refused(CHAIN, "the subject does not say O=SIMULATED"));
        }
        let key =
            |name: &str| SigningKey::from_pkcs8_pem(&text(name)?).map_err(|_| refused(name, "not a P-256 private key"));
        let machine = Self { pck: key(PCK_KEY)?, attestation: key(ATTESTATION_KEY)?, chain };
        let point = tdx::der::point(&machine.pck);
        let named = pck.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes();
        if named != Some(point.as_slice()) {
            return Err(refused(PCK_KEY, "not the PCK certificate's key"));
        }
        Ok(machine)
    }

    /// A quote with `params`, signed by this platform.
    #[must_use]
    pub fn quote(&self, params: &Params) -> Quote {
        super::quote::quote(&self.pck, &self.attestation, params, self.chain.clone())
    }
}
