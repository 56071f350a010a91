//! The TD report as the TDX module gives it to the guest (TDREPORT_STRUCT): only its own machine can verify its MAC, so
//! nothing is believed here. What a quoting enclave makes of it is a quote.
//!
//! Source: Intel TDX Module ABI 348551, TDREPORT_STRUCT.
//!
//! | offset | field |
//! |---|---|
//! | 0 | type u8: 0x81, subtype u8: 0, version u8, 13 reserved |
//! | 16 | CPUSVN 16 |
//! | 32 | SHA-384 of TEE_TCB_INFO, 239 bytes |
//! | 80 | SHA-384 of TDINFO, 512 bytes |
//! | 128 | report data 64, 32 reserved |
//! | 224 | MAC 32 |
//! | 256 | TEE_TCB_INFO: valid 8, TEE_TCB_SVN 16, MRSEAM 48, MRSIGNERSEAM 48, attributes 8, TEE_TCB_SVN2 16, reserved to 239; 17 reserved |
//! | 512 | TDINFO: attributes 8, XFAM 8, MRTD, MRCONFIGID, MROWNER, MROWNERCONFIG, RTMR0 to RTMR3 48 each, SERVTD_HASH 48, 64 reserved |

use super::{Reader, TdAttributes, TdReport, TdReport15, TdxError, Xfam};
use crate::digest::Sha384Digest;

/// Size of a TDREPORT_STRUCT in bytes.
pub const LOCAL_REPORT_SIZE: usize = 1024;
const TYPE_TDX: u8 = 0x81;
const TCB_INFO_SIZE: usize = 239;

/// Reads the structure: both hashes in it hold, and what is reserved is zero. TEE_TCB_SVN2 and SERVTD_HASH stand in
/// [`TdReport::v15`].
///
/// # Errors
/// [`TdxError::Local`].
pub fn parse_local(bytes: &[u8; LOCAL_REPORT_SIZE]) -> Result<TdReport, TdxError> {
    let mut r = Reader::new(bytes);
    let [kind, subtype, _version, reserved] = r.array()?;
    if kind != TYPE_TDX || subtype != 0 || reserved != 0 || r.array()? != [0; 12] {
        return Err(TdxError::Local("type"));
    }
    let _cpu_svn: [u8; 16] = r.array()?;
    let (tcb_hash, td_hash): ([u8; 48], [u8; 48]) = (r.array()?, r.array()?);
    let report_data = r.array()?;
    if r.array()? != [0; 32] {
        return Err(TdxError::Local("reserved bytes"));
    }
    let _mac: [u8; 32] = r.array()?;
    let tcb_info = r.take(TCB_INFO_SIZE)?;
    if r.array()? != [0; 17] {
        return Err(TdxError::Local("reserved bytes"));
    }
    let td_info = r.rest;
    if Sha384Digest::of(tcb_info).as_bytes() != &tcb_hash || Sha384Digest::of(td_info).as_bytes() != &td_hash {
        return Err(TdxError::Local("hash"));
    }
    let mut tcb = Reader::new(tcb_info);
    let _valid: [u8; 8] = tcb.array()?;
    let mut td = Reader::new(td_info);
    let mut report = TdReport {
        tee_tcb_svn: tcb.array()?,
        mr_seam: tcb.array()?,
        mr_signer_seam: tcb.array()?,
        seam_attributes: tcb.array()?,
        td_attributes: TdAttributes(td.u64()?),
        xfam: Xfam(td.u64()?),
        mr_td: td.array()?,
        mr_config_id: td.array()?,
        mr_owner: td.array()?,
        mr_owner_config: td.array()?,
        rtmr: [td.array()?, td.array()?, td.array()?, td.array()?],
        report_data,
        v15: None,
    };
    report.v15 = Some(TdReport15 { tee_tcb_svn2: tcb.array()?, mr_service_td: td.array()? });
    Ok(report)
}

impl TdReport {
    /// As a TDX module would give it to the guest, with zeros for CPUSVN and MAC, which nobody but it can make.
    #[must_use]
    pub fn to_local(&self) -> [u8; LOCAL_REPORT_SIZE] {
        let v15 = self.v15.clone().unwrap_or(TdReport15 { tee_tcb_svn2: [0; 16], mr_service_td: [0; 48] });
        let mut tcb_info = [0xFF, 0x01, 0x03, 0xFF, 0, 0, 0, 0].to_vec();
        for part in
            [&self.tee_tcb_svn[..], &self.mr_seam, &self.mr_signer_seam, &self.seam_attributes, &v15.tee_tcb_svn2]
        {
            tcb_info.extend_from_slice(part);
        }
        tcb_info.resize(TCB_INFO_SIZE, 0);
        let mut td_info = [self.td_attributes.0.to_le_bytes(), self.xfam.0.to_le_bytes()].concat();
        for part in [&self.mr_td, &self.mr_config_id, &self.mr_owner, &self.mr_owner_config] {
            td_info.extend_from_slice(part);
        }
        td_info.extend(self.rtmr.as_flattened());
        td_info.extend_from_slice(&v15.mr_service_td);
        let mut head = [0; 32];
        head[0] = TYPE_TDX;
        let mut out = head.to_vec();
        td_info.resize(512, 0);
        out.extend_from_slice(Sha384Digest::of(&tcb_info).as_bytes());
        out.extend_from_slice(Sha384Digest::of(&td_info).as_bytes());
        out.extend_from_slice(&self.report_data);
        out.resize(256, 0);
        out.extend(tcb_info);
        out.resize(512, 0);
        out.extend(td_info);
        let mut whole = [0; LOCAL_REPORT_SIZE];
        for (to, from) in whole.iter_mut().zip(out) {
            *to = from;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::AzureTdxEvidence;
    use crate::hcl::{Hardware, HclReport};
    use crate::tdx::{Quote, trim};

    const VECTOR: &str = include_str!("../../../tests/data/vectors/az-tdx-vtpm/evidence-v1.json");

    #[test]
    fn a_published_report_is_the_one_in_its_quote_and_is_written_the_same() {
        let evidence = AzureTdxEvidence::from_json(&serde_json::from_str(VECTOR).unwrap()).unwrap();
        let hcl = HclReport::parse(&evidence.hcl_report).unwrap();
        let Hardware::Tdx(bytes) = hcl.hardware() else { panic!("a TD report") };
        let local = parse_local(bytes).unwrap();
        let quote = Quote::parse(trim(&evidence.td_quote).unwrap()).unwrap();
        assert_eq!(TdReport { v15: None, ..local.clone() }, quote.report);
        let mut written = local.to_local();
        // CPUSVN, MAC and the mask of valid fields are the module's.
        for place in [16..32, 224..256] {
            written[place.clone()].copy_from_slice(&bytes[place]);
        }
        assert_eq!(parse_local(&written).unwrap(), local);
        for place in 0..LOCAL_REPORT_SIZE {
            let mut other = *bytes;
            other[place] ^= 1;
            let unbound =
                place == 2 || (16..32).contains(&place) || (128..192).contains(&place) || (224..256).contains(&place);
            assert_eq!(parse_local(&other).is_ok(), unbound, "byte {place}");
        }
    }
}
