//! Quotes of a simulated platform.

use protocols::digest::Sha256Digest;
use protocols::tdx::{
    Header, PckChain, QeReport, Quote, QuoteVersion, SignatureData, TdAttributes, TdReport, TdReport15, Xfam,
};

use super::collateral::sign;
use super::{Platform, der};
use crate::SimulatedError;

/// Signer of the simulated quoting enclave.
pub(super) const QE_SIGNER: [u8; 32] = [0x51; 32];

/// Which layout a quote has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Version 4, TD report 1.0.
    V4,
    /// Version 5, TD report 1.0.
    V5Report10,
    /// Version 5, TD report 1.5.
    V5Report15,
}

/// What the simulated TDX module and quoting enclave say. [`Params::new`] gives good ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The quote's version and TD report.
    pub version: QuoteVersion,
    /// What the quote is about.
    pub report: TdReport,
    /// Security version of the quoting enclave.
    pub qe_isv_svn: u16,
    /// Product id of the quoting enclave.
    pub qe_product: u16,
    /// Signer of the quoting enclave.
    pub qe_signer: [u8; 32],
    /// Attributes of the quoting enclave.
    pub qe_attributes: [u8; 16],
    /// MISCSELECT of the quoting enclave.
    pub qe_misc_select: u32,
}

impl Params {
    /// A trust domain without debugging and migration.
    #[must_use]
    pub const fn new(body: Body, report_data: [u8; 64]) -> Self {
        let tee_tcb_svn = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (version, v15) = match body {
            Body::V4 => (QuoteVersion::V4, None),
            Body::V5Report10 => (QuoteVersion::V5, None),
            Body::V5Report15 => {
                (QuoteVersion::V5, Some(TdReport15 { tee_tcb_svn2: tee_tcb_svn, mr_service_td: [0; 48] }))
            }
        };
        let report = TdReport {
            tee_tcb_svn,
            mr_seam: [0x5E; 48],
            mr_signer_seam: [0; 48],
            seam_attributes: [0; 8],
            td_attributes: TdAttributes(TdAttributes::SEPT_VE_DISABLE),
            // FP, SSE, AVX, AVX-512, PKRU, AMX.
            xfam: Xfam(0x602E7),
            mr_td: [0x7D; 48],
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            rtmr: [[0x10; 48], [0x11; 48], [0x12; 48], [0; 48]],
            report_data,
            v15,
        };
        let mut qe_attributes = [0; 16];
        // INIT, MODE64BIT, PROVISION_KEY.
        qe_attributes[0] = 0x15;
        Self { version, report, qe_isv_svn: 4, qe_product: 2, qe_signer: QE_SIGNER, qe_attributes, qe_misc_select: 0 }
    }
}

impl Platform {
    /// A quote with `params`, signed by this platform.
    ///
    /// # Errors
    /// [`SimulatedError::Make`] never happens for chains of this platform; it is passed on, not hidden.
    pub fn quote(&self, params: &Params) -> Result<Quote, SimulatedError> {
        self.quote_with(params, self.chain())
    }

    /// The same with other certificates inside.
    ///
    /// # Errors
    /// [`SimulatedError::Make`] when they are no chain a quote can hold.
    pub fn quote_with(&self, params: &Params, chain: Vec<Vec<u8>>) -> Result<Quote, SimulatedError> {
        let chain = PckChain::new(chain, false).map_err(|error| SimulatedError::Make(error.to_string()))?;
        Ok(quote(&self.keys.pck, &self.keys.attestation, params, chain))
    }
}

pub(super) fn quote(
    pck: &p256::ecdsa::SigningKey,
    attestation: &p256::ecdsa::SigningKey,
    params: &Params,
    pck_chain: PckChain,
) -> Quote {
    let mut attestation_key = [0; 64];
    // The point's first byte, 04, is not in the quote.
    for (to, from) in attestation_key.iter_mut().zip(der::point(attestation).iter().skip(1)) {
        *to = *from;
    }
    let authentication = [0xA7; 32];
    let mut report_data = [0; 64];
    let bound = Sha256Digest::of_parts(&[&attestation_key, &authentication]);
    for (to, from) in report_data.iter_mut().zip(bound.as_bytes()) {
        *to = *from;
    }
    let qe_report = QeReport {
        cpu_svn: [3; 16],
        misc_select: params.qe_misc_select,
        reserved1: [0; 28],
        attributes: params.qe_attributes,
        mr_enclave: [0x9E; 32],
        reserved2: [0; 32],
        mr_signer: params.qe_signer,
        reserved3: [0; 96],
        isv_prod_id: params.qe_product,
        isv_svn: params.qe_isv_svn,
        reserved4: [0; 60],
        report_data,
    };
    let qe_signature = sign(&qe_report.encode(), pck);
    let mut quote = Quote {
        header: Header { version: params.version, reserved: 0, user_data: [0; 20] },
        report: params.report.clone(),
        signature: SignatureData {
            signature: [0; 64],
            attestation_key,
            qe_report,
            qe_signature,
            authentication,
            pck_chain,
        },
    };
    quote.signature.signature = sign(&quote.signed_bytes(), attestation);
    quote
}
