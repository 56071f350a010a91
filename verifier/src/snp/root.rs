//! Roots of trust: pinned by configuration or built in, read and checked once.

use std::sync::Arc;

use protocols::snp::TcbVersion;

use super::crl::Crl;
use crate::certificate::{Certificate, pem_certificates};

/// A file of certificates that is no root of trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Not PEM, or a certificate in it is not one we can use.
    #[error("certificate {place}: {what}")]
    Certificate {
        /// Its place in the file, from 0.
        place: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Not exactly one certificate is issued in its own name.
    #[error("{count} self-issued certificates, not one ARK")]
    Ark {
        /// How many are.
        count: usize,
    },
    /// Not a revocation list of this root.
    #[error("revocation list: {what}")]
    Crl {
        /// What is wrong.
        what: &'static str,
    },
}

/// A trusted AMD Root Key, the intermediate keys known beforehand, and the minimum TCB of its product.
///
/// Intermediates may also come with the evidence; what counts is the ARK's signature over them.
#[derive(Debug, Clone)]
pub struct TrustedArk {
    ark: Certificate,
    intermediates: Vec<Certificate>,
    simulated: bool,
    minimum_tcb: TcbVersion,
    crl: Option<Arc<Crl>>,
}

impl TrustedArk {
    /// Reads PEM: one self-signed ARK and any number of certificates it issued. A root whose certificate
    /// says `O=SIMULATED` is simulated even where `simulated` is false.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn from_pem(pem: &str, simulated: bool, minimum_tcb: TcbVersion) -> Result<Self, RootError> {
        let ders = pem_certificates(pem).map_err(|what| RootError::Certificate { place: 0, what })?;
        Self::from_ders(ders.iter().map(Vec::as_slice), simulated, minimum_tcb)
    }

    /// Reads DER: one self-signed ARK and any number of certificates it issued, in any order.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn from_ders<'d>(
        ders: impl IntoIterator<Item = &'d [u8]>,
        simulated: bool,
        minimum_tcb: TcbVersion,
    ) -> Result<Self, RootError> {
        let mut arks = Vec::new();
        let mut others = Vec::new();
        for (place, der) in ders.into_iter().enumerate() {
            let certificate = Certificate::parse(der).map_err(|what| RootError::Certificate { place, what })?;
            if certificate.is_self_issued() { &mut arks } else { &mut others }.push((place, certificate));
        }
        let count = arks.len();
        let Some((place, ark)) = arks.pop().filter(|_| count == 1) else {
            return Err(RootError::Ark { count });
        };
        ark.check_signature(&ark).map_err(|what| RootError::Certificate { place, what })?;
        let mut intermediates = Vec::with_capacity(others.len());
        for (place, certificate) in others {
            if !certificate.names_issuer(&ark) {
                return Err(RootError::Certificate { place, what: "not issued by the ARK" });
            }
            certificate.check_signature(&ark).map_err(|what| RootError::Certificate { place, what })?;
            intermediates.push(certificate);
        }
        let simulated = simulated || ark.is_simulated();
        Ok(Self { ark, intermediates, simulated, minimum_tcb, crl: None })
    }

    /// With the root's own revocation list, DER (X.509 version 2, RSA-PSS-4096 with SHA-384). From then on every
    /// report under this root needs the list to be current.
    ///
    /// # Errors
    /// [`RootError::Crl`].
    pub fn with_crl(mut self, der: &[u8]) -> Result<Self, RootError> {
        let crl = Crl::parse(der, &self.ark).map_err(|what| RootError::Crl { what })?;
        self.crl = Some(Arc::new(crl));
        Ok(self)
    }

    /// Whether it counts in development only.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.simulated
    }

    /// Below this no TCB of a report under this root may be.
    #[must_use]
    pub const fn minimum_tcb(&self) -> TcbVersion {
        self.minimum_tcb
    }

    pub(super) const fn crl(&self) -> Option<&Arc<Crl>> {
        self.crl.as_ref()
    }

    pub(super) const fn ark(&self) -> &Certificate {
        &self.ark
    }

    /// Intermediates whose signature by the ARK was checked when the root was read.
    pub(super) fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }
}

/// AMD's products, each with a root of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and its kin.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// AMD's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// From AMD's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Milan, Self::Genoa, Self::Turin].into_iter().find(|product| product.as_str() == text)
    }
}

/// AMD's own root for a product with its intermediate keys (ASK for VCEKs, ASVK for VLEKs), as AMD publishes them.
///
/// # Errors
/// [`RootError`] never happens for the files built in; it is passed on, not hidden.
pub fn amd_root(product: Product, minimum_tcb: TcbVersion) -> Result<TrustedArk, RootError> {
    let pem = match product {
        Product::Milan => include_str!("../../roots/milan_ask_ark_asvk.pem"),
        Product::Genoa => include_str!("../../roots/genoa_ask_ark_asvk.pem"),
        Product::Turin => include_str!("../../roots/turin_ask_ark_asvk.pem"),
    };
    TrustedArk::from_pem(pem, false, minimum_tcb)
}

/// [`amd_root`] for Milan, Genoa and Turin; `minimum_tcb` for each.
///
/// # Errors
/// As [`amd_root`].
pub fn amd_roots(
    milan_minimum: TcbVersion,
    genoa_minimum: TcbVersion,
    turin_minimum: TcbVersion,
) -> Result<Vec<TrustedArk>, RootError> {
    [(Product::Milan, milan_minimum), (Product::Genoa, genoa_minimum), (Product::Turin, turin_minimum)]
        .into_iter()
        .map(|(product, minimum)| amd_root(product, minimum))
        .collect()
}
