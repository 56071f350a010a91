//! The two reports inside a quote.

use super::{Reader, TdAttributes, TdxError, Xfam};

/// Size of TD report 1.0 in bytes.
pub const REPORT_10_SIZE: usize = 584;
/// Size of TD report 1.5 in bytes.
pub const REPORT_15_SIZE: usize = 648;
/// Size of a quoting enclave's report in bytes.
const QE_REPORT_SIZE: usize = 384;

/// A TD report: what the TDX module says of the trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdReport {
    /// Security versions of the TDX module and its loader, 16 bytes.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// Signer of the TDX module; zero for Intel's.
    pub mr_signer_seam: [u8; 48],
    /// Attributes of the TDX module.
    pub seam_attributes: [u8; 8],
    /// Attributes of the TD.
    pub td_attributes: TdAttributes,
    /// Processor features the TD may use.
    pub xfam: Xfam,
    /// Measurement of the TD's first memory: firmware and its configuration.
    pub mr_td: [u8; 48],
    /// MRCONFIGID: what the host gave at launch; here SHA-384 of the initdata, or zero.
    pub mr_config_id: [u8; 48],
    /// MROWNER, given at launch.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG, given at launch.
    pub mr_owner_config: [u8; 48],
    /// RTMR0 to RTMR3: extended at run time.
    pub rtmr: [[u8; 48]; 4],
    /// What the guest asked to be signed.
    pub report_data: [u8; 64],
    /// Present in report 1.5.
    pub v15: Option<TdReport15>,
}

/// What report 1.5 has besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdReport15 {
    /// Security versions now; [`TdReport::tee_tcb_svn`] are those of the launch.
    pub tee_tcb_svn2: [u8; 16],
    /// Measurement of the bound service TDs; zero without.
    pub mr_service_td: [u8; 48],
}

impl TdReport {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, TdxError> {
        let mut r = Reader::new(bytes);
        let mut report = Self {
            tee_tcb_svn: r.array()?,
            mr_seam: r.array()?,
            mr_signer_seam: r.array()?,
            seam_attributes: r.array()?,
            td_attributes: TdAttributes(r.u64()?),
            xfam: Xfam(r.u64()?),
            mr_td: r.array()?,
            mr_config_id: r.array()?,
            mr_owner: r.array()?,
            mr_owner_config: r.array()?,
            rtmr: [r.array()?, r.array()?, r.array()?, r.array()?],
            report_data: r.array()?,
            v15: None,
        };
        if !r.rest.is_empty() {
            report.v15 = Some(TdReport15 { tee_tcb_svn2: r.array()?, mr_service_td: r.array()? });
        }
        if r.rest.is_empty() { Ok(report) } else { Err(TdxError::Length("TD report")) }
    }

    /// The 584 or 648 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(REPORT_15_SIZE);
        out.extend_from_slice(&self.tee_tcb_svn);
        out.extend_from_slice(&self.mr_seam);
        out.extend_from_slice(&self.mr_signer_seam);
        out.extend_from_slice(&self.seam_attributes);
        out.extend_from_slice(&self.td_attributes.0.to_le_bytes());
        out.extend_from_slice(&self.xfam.0.to_le_bytes());
        for measurement in [&self.mr_td, &self.mr_config_id, &self.mr_owner, &self.mr_owner_config] {
            out.extend_from_slice(measurement);
        }
        for register in &self.rtmr {
            out.extend_from_slice(register);
        }
        out.extend_from_slice(&self.report_data);
        if let Some(v15) = &self.v15 {
            out.extend_from_slice(&v15.tee_tcb_svn2);
            out.extend_from_slice(&v15.mr_service_td);
        }
        out
    }
}

/// The quoting enclave's own SGX report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QeReport {
    /// Security versions of the processor.
    pub cpu_svn: [u8; 16],
    /// MISCSELECT.
    pub misc_select: u32,
    /// Reserved.
    pub reserved1: [u8; 28],
    /// Attributes of the enclave.
    pub attributes: [u8; 16],
    /// Measurement of the enclave.
    pub mr_enclave: [u8; 32],
    /// Reserved.
    pub reserved2: [u8; 32],
    /// Signer of the enclave.
    pub mr_signer: [u8; 32],
    /// Reserved.
    pub reserved3: [u8; 96],
    /// Product id.
    pub isv_prod_id: u16,
    /// Security version.
    pub isv_svn: u16,
    /// Reserved.
    pub reserved4: [u8; 60],
    /// SHA-256 of attestation key and authentication data, then 32 bytes.
    pub report_data: [u8; 64],
}

impl QeReport {
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, TdxError> {
        Ok(Self {
            cpu_svn: r.array()?,
            misc_select: r.u32()?,
            reserved1: r.array()?,
            attributes: r.array()?,
            mr_enclave: r.array()?,
            reserved2: r.array()?,
            mr_signer: r.array()?,
            reserved3: r.array()?,
            isv_prod_id: r.u16()?,
            isv_svn: r.u16()?,
            reserved4: r.array()?,
            report_data: r.array()?,
        })
    }

    /// The 384 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QE_REPORT_SIZE);
        out.extend_from_slice(&self.cpu_svn);
        out.extend_from_slice(&self.misc_select.to_le_bytes());
        out.extend_from_slice(&self.reserved1);
        out.extend_from_slice(&self.attributes);
        out.extend_from_slice(&self.mr_enclave);
        out.extend_from_slice(&self.reserved2);
        out.extend_from_slice(&self.mr_signer);
        out.extend_from_slice(&self.reserved3);
        out.extend_from_slice(&self.isv_prod_id.to_le_bytes());
        out.extend_from_slice(&self.isv_svn.to_le_bytes());
        out.extend_from_slice(&self.reserved4);
        out.extend_from_slice(&self.report_data);
        out
    }
}
