//! Collateral: what Intel says of a kind of platform, handed over as files.

use dcap_qvl::QuoteCollateralV3;
use protocols::time::Timestamp;
use serde::Deserialize;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode as _, Encode as _};

use super::root::TdxRoot;
use crate::certificate::{Certificate, pem_certificates};

/// Bytes that are no collateral.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollateralError {
    /// Not the JSON of one platform's collateral.
    #[error("not the JSON of TDX collateral: {0}")]
    Json(String),
    /// A part of it cannot be read.
    #[error("{part}: {what}")]
    Part {
        /// Which.
        part: &'static str,
        /// What is wrong.
        what: &'static str,
    },
}

/// Collateral for one kind of platform (FMSPC), read but not verified: that happens with each quote, at the quote's
/// time. The form is one JSON object, as PCCS clients store it: `pck_crl_issuer_chain`, `tcb_info_issuer_chain` and
/// `qe_identity_issuer_chain` (PEM), `root_ca_crl`, `pck_crl` (DER as hex), `tcb_info`, `qe_identity` (the signed
/// texts), `tcb_info_signature`, `qe_identity_signature` (hex).
#[derive(Debug, Clone)]
pub struct TdxCollateral {
    inner: QuoteCollateralV3,
    fmspc: [u8; 6],
    pck_issuer: Vec<u8>,
    evaluation: u32,
    from: Timestamp,
    to: Timestamp,
    signers: Vec<Certificate>,
    root_revoked: Vec<Vec<u8>>,
}

/// What is read of TCB info.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcbInfo {
    fmspc: String,
    issue_date: Timestamp,
    next_update: Timestamp,
    tcb_evaluation_data_number: u32,
}

/// What is read of a QE identity.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QeIdentity {
    issue_date: Timestamp,
    next_update: Timestamp,
    tcb_evaluation_data_number: u32,
}

/// What is read of a revocation list.
struct Crl {
    from: Timestamp,
    to: Timestamp,
    issuer: Vec<u8>,
    revoked: Vec<Vec<u8>>,
}

impl TdxCollateral {
    /// Reads the JSON of one platform's collateral.
    ///
    /// # Errors
    /// [`CollateralError`].
    pub fn parse(json: &[u8]) -> Result<Self, CollateralError> {
        let bad = |error: serde_json::Error| CollateralError::Json(error.to_string());
        let mut inner: QuoteCollateralV3 = serde_json::from_slice(json).map_err(bad)?;
        // The quote brings its chain. Another one here would be used in its place.
        inner.pck_certificate_chain = None;
        let tcb_info: TcbInfo = serde_json::from_str(&inner.tcb_info).map_err(bad)?;
        let qe_identity: QeIdentity = serde_json::from_str(&inner.qe_identity).map_err(bad)?;
        let mut fmspc = [0; 6];
        decode_hex(&tcb_info.fmspc, &mut fmspc)
            .ok_or(CollateralError::Part { part: "fmspc", what: "not 12 hex digits" })?;
        let root_crl = crl("root_ca_crl", &inner.root_ca_crl)?;
        let pck_crl = crl("pck_crl", &inner.pck_crl)?;
        let mut signers = Vec::new();
        for (part, chain) in [
            ("tcb_info_issuer_chain", &inner.tcb_info_issuer_chain),
            ("qe_identity_issuer_chain", &inner.qe_identity_issuer_chain),
        ] {
            let failed = |what| CollateralError::Part { part, what };
            let ders = pem_certificates(chain).map_err(failed)?;
            let signer = ders.first().ok_or_else(|| failed("no certificate"))?;
            signers.push(Certificate::parse(signer).map_err(failed)?);
        }
        let from = [tcb_info.issue_date, qe_identity.issue_date, root_crl.from, pck_crl.from];
        let to = [tcb_info.next_update, qe_identity.next_update, root_crl.to, pck_crl.to];
        Ok(Self {
            fmspc,
            pck_issuer: pck_crl.issuer,
            evaluation: tcb_info.tcb_evaluation_data_number.min(qe_identity.tcb_evaluation_data_number),
            from: from.into_iter().fold(Timestamp(0), Timestamp::max),
            to: to.into_iter().fold(Timestamp::MAX, Timestamp::min),
            signers,
            root_revoked: root_crl.revoked,
            inner,
        })
    }

    /// The kind of platform it is for.
    #[must_use]
    pub const fn fmspc(&self) -> &[u8; 6] {
        &self.fmspc
    }

    /// The lower of its two evaluation data numbers.
    #[must_use]
    pub const fn evaluation(&self) -> u32 {
        self.evaluation
    }

    /// First and last moment at which every part of it counts.
    #[must_use]
    pub const fn window(&self) -> (Timestamp, Timestamp) {
        (self.from, self.to)
    }

    /// Whether a signer of it is simulated.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.signers.iter().any(Certificate::is_simulated)
    }

    /// Whether it is for the same kind of platform and has the list of the same PCK issuer.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.is_for(&other.fmspc, &other.pck_issuer)
    }

    /// Whether it takes `other`'s place: for the same platforms, and older in neither its issue nor its evaluation data.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.is_like(other) && self.evaluation >= other.evaluation && self.from >= other.from
    }

    pub(super) const fn inner(&self) -> &QuoteCollateralV3 {
        &self.inner
    }

    /// Whether it is for this kind of platform and has the list of this PCK issuer (DER of the name).
    pub(super) fn is_for(&self, fmspc: &[u8; 6], pck_issuer: &[u8]) -> bool {
        self.fmspc == *fmspc && self.pck_issuer == pck_issuer
    }

    /// Whether `root` stands behind both signers at `now`. Asked only to tell whose fault a refusal is.
    pub(super) fn is_signed_under(&self, root: &TdxRoot, now: Timestamp) -> bool {
        self.signers.iter().all(|signer| {
            let (from, to) = signer.validity();
            signer.names_issuer(root.certificate())
                && signer.check_p256_signature(root.certificate()).is_ok()
                && (from..=to).contains(&now.0)
                && !self.root_revoked.iter().any(|serial| serial == signer.serial())
        })
    }
}

fn crl(part: &'static str, der: &[u8]) -> Result<Crl, CollateralError> {
    let failed = |what| CollateralError::Part { part, what };
    let list =
        CertificateList::<Rfc5280>::from_der(der).map_err(|_| failed("not a DER revocation list"))?.tbs_cert_list;
    let to = list.next_update.ok_or_else(|| failed("no next update"))?;
    let revoked = list.revoked_certificates.unwrap_or_default();
    Ok(Crl {
        from: Timestamp(list.this_update.to_unix_duration().as_secs()),
        // A list has ended at its next update.
        to: Timestamp(to.to_unix_duration().as_secs().saturating_sub(1)),
        issuer: list.issuer.to_der().map_err(|_| failed("no issuer"))?,
        revoked: revoked.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect(),
    })
}

fn decode_hex(text: &str, out: &mut [u8; 6]) -> Option<()> {
    if text.len() != 12 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(place * 2..place * 2 + 2)?, 16).ok()?;
    }
    Some(())
}
