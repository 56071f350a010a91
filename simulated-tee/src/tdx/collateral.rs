//! TCB info, QE identity and revocation lists, as Intel's service hands them out.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use protocols::time::Timestamp;
use serde_json::json;

use super::{PLATFORM_CA, Platform, ROOT, Validity, der, files, validity};

/// The security versions one status stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// At least these, of the processor.
    pub sgx: [u8; 16],
    /// At least these, of the TDX module and its loader.
    pub tdx: [u8; 16],
    /// At least this, of the PCE.
    pub pce: u16,
    /// Such as `UpToDate`.
    pub status: &'static str,
    /// Such as `INTEL-SA-00001`.
    pub advisories: Vec<&'static str>,
}

/// The same for the TDX module alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleLevel {
    /// At least this.
    pub isv_svn: u8,
    /// Its status.
    pub status: &'static str,
}

/// The same for the quoting enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QeLevel {
    /// At least this.
    pub isv_svn: u16,
    /// Its status.
    pub status: &'static str,
}

/// When the two revocation lists count, and what they revoke by serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crls {
    /// The root's list.
    pub root: Validity,
    /// Certificates of the root's.
    pub root_revoked: Vec<u64>,
    /// The platform authority's list.
    pub pck: Validity,
    /// PCK certificates.
    pub pck_revoked: Vec<u64>,
}

/// What the collateral says. [`CollateralFacts::new`] gives good one; tests change members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollateralFacts {
    /// Kind of platform.
    pub fmspc: [u8; 6],
    /// TCB info's issue date and next update.
    pub tcb_info: Validity,
    /// QE identity's.
    pub qe_identity: Validity,
    /// TCB info's evaluation data number.
    pub tcb_evaluation: u32,
    /// QE identity's.
    pub qe_evaluation: u32,
    /// Platform levels, highest first.
    pub levels: Vec<Level>,
    /// The TDX module's signer.
    pub module_signer: [u8; 48],
    /// Levels of the TDX module of major version 1, highest first.
    pub module_levels: Vec<ModuleLevel>,
    /// The quoting enclave's signer.
    pub qe_signer: [u8; 32],
    /// The quoting enclave's product id.
    pub qe_product: u16,
    /// Levels of the quoting enclave, highest first.
    pub qe_levels: Vec<QeLevel>,
    /// Revocation lists.
    pub crls: Crls,
}

impl CollateralFacts {
    /// Collateral under which `platform` and [`super::Params::new`] are up to date, for as long as its certificates.
    #[must_use]
    pub fn new(platform: &Platform, now: Timestamp) -> Self {
        let all = validity(now);
        let level = |pce, status, advisories| Level {
            sgx: platform.pck.cpu_svn,
            tdx: [5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            pce,
            status,
            advisories,
        };
        Self {
            fmspc: platform.pck.fmspc,
            tcb_info: all,
            qe_identity: all,
            tcb_evaluation: 17,
            qe_evaluation: 17,
            levels: vec![
                level(platform.pck.pce_svn, "UpToDate", vec![]),
                level(platform.pck.pce_svn.saturating_sub(2), "OutOfDate", vec!["INTEL-SA-00001"]),
            ],
            module_signer: [0; 48],
            module_levels: vec![
                ModuleLevel { isv_svn: 5, status: "UpToDate" },
                ModuleLevel { isv_svn: 3, status: "OutOfDate" },
            ],
            qe_signer: super::quote::QE_SIGNER,
            qe_product: 2,
            qe_levels: vec![QeLevel { isv_svn: 4, status: "UpToDate" }, QeLevel { isv_svn: 2, status: "OutOfDate" }],
            crls: Crls { root: all, root_revoked: vec![], pck: all, pck_revoked: vec![] },
        }
    }

    fn tcb_info_json(&self) -> String {
        let components = |svns: &[u8; 16]| -> Vec<_> { svns.iter().map(|svn| json!({ "svn": svn })).collect() };
        let levels: Vec<_> = self
            .levels
            .iter()
            .map(|level| {
                json!({
                    "tcb": {
                        "sgxtcbcomponents": components(&level.sgx),
                        "pcesvn": level.pce,
                        "tdxtcbcomponents": components(&level.tdx),
                    },
                    "tcbDate": "2024-03-13T00:00:00Z",
                    "tcbStatus": level.status,
                    "advisoryIDs": level.advisories,
                })
            })
            .collect();
        let module_levels: Vec<_> = self
            .module_levels
            .iter()
            .map(|level| {
                json!({
                    "tcb": { "isvsvn": level.isv_svn }, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": level.status,
                })
            })
            .collect();
        let signer = hex(&self.module_signer);
        json!({
            "id": "TDX",
            "version": 3,
            "issueDate": self.tcb_info.from,
            "nextUpdate": self.tcb_info.to,
            "fmspc": hex(&self.fmspc),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": self.tcb_evaluation,
            "tdxModule": { "mrsigner": signer, "attributes": hex(&[0; 8]), "attributesMask": hex(&[0xFF; 8]) },
            "tdxModuleIdentities": [{
                "id": "TDX_01",
                "mrsigner": signer,
                "attributes": hex(&[0; 8]),
                "attributesMask": hex(&[0xFF; 8]),
                "tcbLevels": module_levels,
            }],
            "tcbLevels": levels,
        })
        .to_string()
    }

    fn qe_identity_json(&self) -> String {
        let levels: Vec<_> = self
            .qe_levels
            .iter()
            .map(|level| {
                json!({
                    "tcb": { "isvsvn": level.isv_svn }, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": level.status,
                })
            })
            .collect();
        json!({
            "id": "TD_QE",
            "version": 2,
            "issueDate": self.qe_identity.from,
            "nextUpdate": self.qe_identity.to,
            "tcbEvaluationDataNumber": self.qe_evaluation,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": hex(&self.qe_signer),
            "isvprodid": self.qe_product,
            "tcbLevels": levels,
        })
        .to_string()
    }
}

impl Platform {
    /// The collateral as one JSON text: chains as PEM, lists and signatures as hex.
    #[must_use]
    pub fn collateral(&self, facts: &CollateralFacts) -> String {
        let keys = &self.keys;
        let (tcb_info, qe_identity) = (facts.tcb_info_json(), facts.qe_identity_json());
        let signers = files::pem(&[self.tcb_signing_der(), self.root_der()]);
        json!({
            "pck_crl_issuer_chain": files::pem(&[self.platform_ca_der(), self.root_der()]),
            "root_ca_crl": hex(&der::crl(ROOT, facts.crls.root, &facts.crls.root_revoked, &keys.root)),
            "pck_crl": hex(&der::crl(PLATFORM_CA, facts.crls.pck, &facts.crls.pck_revoked, &keys.platform_ca)),
            "tcb_info_issuer_chain": signers,
            "tcb_info_signature": hex(&sign(tcb_info.as_bytes(), &keys.tcb_signing)),
            "tcb_info": tcb_info,
            "qe_identity_issuer_chain": signers,
            "qe_identity_signature": hex(&sign(qe_identity.as_bytes(), &keys.tcb_signing)),
            "qe_identity": qe_identity,
        })
        .to_string()
    }
}

/// r and s, 32 bytes each.
pub(super) fn sign(bytes: &[u8], key: &SigningKey) -> [u8; 64] {
    let signature: Signature = key.sign(bytes);
    signature.to_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
