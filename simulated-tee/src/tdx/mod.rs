//! Simulated TDX platforms: quotes and collateral in Intel's formats under roots of our own.
//!
//! [`Platform`] holds everything that Intel and a machine's quoting enclave would hold, so that any part can be
//! made otherwise and signed again. A directory keeps what an installation needs: `tdx-root.pem`,
//! `tdx-pck.pem` (PCK and its issuer), `tdx-collateral.json`, and the keys `tdx-pck.key` and
//! `tdx-attestation.key` (PKCS#8 PEM, mode 0600).

mod collateral;
mod der;
mod files;
mod quote;

use p256::ecdsa::SigningKey;
use protocols::time::Timestamp;

pub use collateral::{CollateralFacts, Crls, Level, ModuleLevel, QeLevel};
pub use der::Validity;
pub use files::Machine;
pub use quote::{Body, Params};

use crate::{SimulatedError, files as random_files};

/// Names of the certificates, each with `O=SIMULATED`.
pub(crate) const ROOT: &str = "SIMULATED SGX Root CA";
pub(crate) const PLATFORM_CA: &str = "SIMULATED SGX PCK Platform CA";
const PCK: &str = "SIMULATED SGX PCK Certificate";
const TCB_SIGNING: &str = "SIMULATED SGX TCB Signing";

const DAY: u64 = 24 * 60 * 60;
const LIFE: u64 = 3650 * DAY;

/// Issuer and subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) issuer: &'static str,
    pub(crate) subject: &'static str,
}

/// What a PCK certificate says of its platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PckFacts {
    /// Kind of platform: the collateral's key.
    pub fmspc: [u8; 6],
    /// Security versions of the processor.
    pub cpu_svn: [u8; 16],
    /// Security version of the PCE.
    pub pce_svn: u16,
    /// The platform.
    pub ppid: [u8; 16],
    /// The certificate's serial number.
    pub serial: u64,
    /// When it counts.
    pub validity: Validity,
}

/// The keys of one simulated Intel and one simulated platform.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) root: SigningKey,
    pub(crate) platform_ca: SigningKey,
    pub(crate) tcb_signing: SigningKey,
    pub(crate) pck: SigningKey,
    pub(crate) attestation: SigningKey,
}

/// A simulated platform with its whole PKI in memory.
#[derive(Clone)]
pub struct Platform {
    keys: Keys,
    /// What the PCK certificate says.
    pub pck: PckFacts,
    /// When the root's certificate counts.
    pub root: Validity,
    /// When the PCK's issuer's does.
    pub platform_ca: Validity,
    /// When the TCB signer's does.
    pub tcb_signing: Validity,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("pck", &self.pck).finish_non_exhaustive()
    }
}

impl Platform {
    /// A platform with new keys, valid from a day before `now` for ten years.
    ///
    /// # Errors
    /// [`SimulatedError::Make`] when the system gives no randomness.
    pub fn new(now: Timestamp) -> Result<Self, SimulatedError> {
        let mut ppid = [0; 16];
        random_files::random(&mut ppid)?;
        let all = validity(now);
        let pck = PckFacts {
            fmspc: *b"SIMTDX",
            cpu_svn: [3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0],
            pce_svn: 13,
            ppid,
            serial: 0x51,
            validity: all,
        };
        let keys = Keys { root: key()?, platform_ca: key()?, tcb_signing: key()?, pck: key()?, attestation: key()? };
        Ok(Self { keys, pck, root: all, platform_ca: all, tcb_signing: all })
    }

    /// The root's certificate, DER.
    #[must_use]
    pub fn root_der(&self) -> Vec<u8> {
        self.authority(ROOT, &self.keys.root, 1, self.root)
    }

    /// The PCK's issuer's certificate, DER.
    #[must_use]
    pub fn platform_ca_der(&self) -> Vec<u8> {
        self.authority(PLATFORM_CA, &self.keys.platform_ca, 2, self.platform_ca)
    }

    /// The certificate that signs TCB info and QE identity, DER.
    #[must_use]
    pub fn tcb_signing_der(&self) -> Vec<u8> {
        let spec = der::Spec {
            names: Names { issuer: ROOT, subject: TCB_SIGNING },
            serial: 3,
            validity: self.tcb_signing,
            key: &self.keys.tcb_signing,
            authority: false,
            sgx: None,
        };
        der::certificate(&spec, &self.keys.root)
    }

    /// The platform's own certificate, DER.
    #[must_use]
    pub fn pck_der(&self) -> Vec<u8> {
        let spec = der::Spec {
            names: Names { issuer: PLATFORM_CA, subject: PCK },
            serial: self.pck.serial,
            validity: self.pck.validity,
            key: &self.keys.pck,
            authority: false,
            sgx: Some(der::sgx_extension(&self.pck)),
        };
        der::certificate(&spec, &self.keys.platform_ca)
    }

    /// PCK, its issuer, root.
    #[must_use]
    pub fn chain(&self) -> Vec<Vec<u8>> {
        vec![self.pck_der(), self.platform_ca_der(), self.root_der()]
    }

    fn authority(&self, subject: &'static str, key: &SigningKey, serial: u64, validity: Validity) -> Vec<u8> {
        let spec =
            der::Spec { names: Names { issuer: ROOT, subject }, serial, validity, key, authority: true, sgx: None };
        der::certificate(&spec, &self.keys.root)
    }
}

/// From a day before `now`, since the clocks of attester and attestor may differ, for ten years.
fn validity(now: Timestamp) -> Validity {
    let from = Timestamp(now.0.saturating_sub(DAY));
    Validity { from, to: from.plus(LIFE) }
}

fn key() -> Result<SigningKey, SimulatedError> {
    loop {
        let mut seed = [0; 32];
        random_files::random(&mut seed)?;
        // A seed outside the field's order is drawn again.
        if let Ok(key) = SigningKey::from_slice(&seed) {
            return Ok(key);
        }
    }
}

#[cfg(test)]
mod tests;
