//! Roots of trust: Intel's, built in, or pinned by configuration.

use crate::certificate::{Certificate, pem_certificates};

/// A file that is no root of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TdxRootError {
    /// Not PEM, or not a certificate we can use.
    #[error("the root: {0}")]
    Certificate(&'static str),
    /// Not exactly one certificate.
    #[error("{0} certificates, not one root")]
    Count(usize),
}

/// A trusted root of PCK certificates and collateral.
#[derive(Debug, Clone)]
pub struct TdxRoot {
    der: Vec<u8>,
    certificate: Certificate,
    simulated: bool,
}

impl TdxRoot {
    /// Reads PEM: one self-signed certificate. A root that says `O=SIMULATED` is simulated even where `simulated` is
    /// false.
    ///
    /// # Errors
    /// [`TdxRootError`].
    pub fn from_pem(pem: &str, simulated: bool) -> Result<Self, TdxRootError> {
        let ders = pem_certificates(pem).map_err(TdxRootError::Certificate)?;
        match ders.as_slice() {
            [der] => Self::from_der(der, simulated),
            ders => Err(TdxRootError::Count(ders.len())),
        }
    }

    /// Reads DER.
    ///
    /// # Errors
    /// [`TdxRootError::Certificate`].
    pub fn from_der(der: &[u8], simulated: bool) -> Result<Self, TdxRootError> {
        let certificate = Certificate::parse(der).map_err(TdxRootError::Certificate)?;
        certificate.check_p256_signature(&certificate).map_err(TdxRootError::Certificate)?;
        let simulated = simulated || certificate.is_simulated();
        Ok(Self { der: der.to_vec(), certificate, simulated })
    }

    /// Intel's own.
    ///
    /// # Errors
    /// [`TdxRootError`] never happens for the file built in; it is passed on, not hidden.
    pub fn intel() -> Result<Self, TdxRootError> {
        Self::from_pem(include_str!("../../roots/intel_sgx_root.pem"), false)
    }

    /// Whether it counts in development only.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.simulated
    }

    /// The certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) const fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}
