//! An Azure confidential VM: a paravisor's report over a vTPM's key, and that vTPM's quotes.

use protocols::azure::{AzureQuote, AzureSnpEvidence, AzureTdxEvidence};
use protocols::digest::Sha256Digest;
use protocols::encoding::b64url;
use protocols::snp::Report;
use protocols::tdx::TdReport;
use protocols::tpm::{PCR_COUNT, pcr_digest};
use rsa::PrivateKey;
use rsa::pkcs1v15;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Params, Pki, SimulatedError};

const AK_BITS: usize = 2048;
/// What NV index 0x01400001 holds.
const HCL_SIZE: usize = 2600;
/// How an HCL report calls an SNP report, and a TD report.
const SNP: usize = 2;
const TDX: usize = 4;
/// Where the hardware report ends and the claims begin.
const HARDWARE_END: usize = 0x4C0;

/// What a TPMS_ATTEST is made of. [`VtpmQuote::new`] gives a good one; tests change members to make wrong ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtpmQuote {
    /// TPM_GENERATED_VALUE.
    pub magic: u32,
    /// TPM_ST_ATTEST_QUOTE.
    pub kind: u16,
    /// The nonce.
    pub extra_data: Vec<u8>,
    /// TPM resets.
    pub reset_count: u32,
    /// Banks with their bitmaps.
    pub selections: Vec<(u16, Vec<u8>)>,
    /// Digest over the quoted values.
    pub digest: Vec<u8>,
    /// The values presented.
    pub pcrs: Vec<Sha256Digest>,
}

impl VtpmQuote {
    /// A quote of SHA-256 PCRs 0 to 23 over `nonce`.
    #[must_use]
    pub fn new(nonce: &[u8], pcrs: &[Sha256Digest; PCR_COUNT]) -> Self {
        Self {
            magic: 0xFF54_4347,
            kind: 0x8018,
            extra_data: nonce.to_vec(),
            reset_count: 1,
            selections: vec![(0x000B, vec![0xFF; 3])],
            digest: pcr_digest(pcrs).as_bytes().to_vec(),
            pcrs: pcrs.to_vec(),
        }
    }

    fn message(&self) -> Vec<u8> {
        let sized = |bytes: &[u8]| {
            let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            [size.to_be_bytes().as_slice(), bytes].concat()
        };
        let mut out = [self.magic.to_be_bytes().as_slice(), &self.kind.to_be_bytes(), &sized(&[0x0B; 34])].concat();
        out.extend(sized(&self.extra_data));
        out.extend(1_000u64.to_be_bytes()); // clock
        out.extend(self.reset_count.to_be_bytes());
        out.extend(0u32.to_be_bytes()); // restartCount
        out.push(1); // safe
        out.extend(1u64.to_be_bytes()); // firmwareVersion
        out.extend(u32::try_from(self.selections.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (bank, bitmap) in &self.selections {
            out.extend(bank.to_be_bytes());
            out.push(u8::try_from(bitmap.len()).unwrap_or(u8::MAX));
            out.extend(bitmap);
        }
        out.extend(sized(&self.digest));
        out
    }
}

/// A VM with a vTPM of its own. Its attestation key lives as long as this value.
pub struct AzureVm {
    key: pkcs1v15::SigningKey<Sha256>,
    modulus: Vec<u8>,
}

impl std::fmt::Debug for AzureVm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AzureVm").finish_non_exhaustive()
    }
}

impl AzureVm {
    /// A VM with a new RSA-2048 attestation key.
    ///
    /// # Errors
    /// [`SimulatedError::Make`].
    pub fn new() -> Result<Self, SimulatedError> {
        let key = PrivateKey::new(&mut getrandom::SysRng, AK_BITS)?;
        let modulus = key.n().to_be_bytes_trimmed_vartime().to_vec();
        Ok(Self { key: pkcs1v15::SigningKey::new(key), modulus })
    }

    /// The JSON that the paravisor puts under the report's data. It says that it is simulated.
    #[must_use]
    pub fn claims(&self, user_data: &[u8; 64]) -> Value {
        claims_for(&self.modulus, user_data)
    }

    /// Evidence of version 2: a report with `params`, whose data become the hash of `claims`, and a quote.
    ///
    /// # Errors
    /// [`SimulatedError::Report`] when the parameters do not fit each other.
    pub fn evidence(
        &self,
        pki: &Pki,
        params: &Params,
        claims: &Value,
        quote: &VtpmQuote,
    ) -> Result<AzureSnpEvidence, SimulatedError> {
        let (report, var_data) = bound(pki, params, claims)?;
        Ok(self.evidence_of(pki, &report, &var_data, quote))
    }

    /// Evidence of parts that need not belong together; for evidence that no VM would show.
    #[must_use]
    pub fn evidence_of(&self, pki: &Pki, report: &Report, var_data: &[u8], quote: &VtpmQuote) -> AzureSnpEvidence {
        AzureSnpEvidence {
            version: 2,
            quote: self.quote(quote),
            hcl_report: padded(hcl_report(SNP, report.to_bytes().as_slice(), var_data)),
            vcek: pki.vcek_der().to_vec(),
        }
    }

    /// The same of a VM on TDX. In evidence that a VM would show, `td_quote` is of `report`, whose data are
    /// [`claims_data`] of `var_data`.
    #[must_use]
    pub fn td_evidence_of(
        &self,
        report: &TdReport,
        td_quote: Vec<u8>,
        var_data: &[u8],
        quote: &VtpmQuote,
    ) -> AzureTdxEvidence {
        let hcl_report = padded(hcl_report(TDX, &report.to_local(), var_data));
        AzureTdxEvidence { version: 2, quote: self.quote(quote), hcl_report, td_quote }
    }

    fn quote(&self, quote: &VtpmQuote) -> AzureQuote {
        let message = quote.message();
        let signature = self.key.sign(&message).to_vec();
        AzureQuote { signature, message, pcrs: quote.pcrs.iter().map(Sha256Digest::hex).collect() }
    }
}

/// As [`AzureVm::claims`], for a vTPM whose RSA attestation key has this modulus, big-endian.
#[must_use]
pub fn claims_for(modulus: &[u8], user_data: &[u8; 64]) -> Value {
    let user_data: String = user_data.iter().map(|byte| format!("{byte:02X}")).collect();
    json!({
        "keys": [{"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": b64url(modulus)}],
        "vm-configuration": {"secure-boot": true, "tpm-enabled": true, "simulated": true},
        "user-data": user_data,
    })
}

/// The paravisor's report with `params`, whose data become the hash of `claims`, without zeros behind it: software TPMs
/// have smaller indices than the paravisor's.
///
/// # Errors
/// [`SimulatedError::Report`] when the parameters do not fit each other.
pub fn paravisor_report(pki: &Pki, params: &Params, claims: &Value) -> Result<Vec<u8>, SimulatedError> {
    let (report, var_data) = bound(pki, params, claims)?;
    Ok(hcl_report(SNP, report.to_bytes().as_slice(), &var_data))
}

/// The same of a VM on TDX: `report`, whose data become the hash of `claims`.
#[must_use]
pub fn paravisor_td_report(report: &TdReport, claims: &Value) -> Vec<u8> {
    let var_data = claims.to_string().into_bytes();
    hcl_report(TDX, &TdReport { report_data: claims_data(&var_data), ..report.clone() }.to_local(), &var_data)
}

/// The report data that are made of the paravisor's claims: their SHA-256, then zeros.
#[must_use]
pub fn claims_data(var_data: &[u8]) -> [u8; 64] {
    let mut report_data = [0; 64];
    for (to, from) in report_data.iter_mut().zip(Sha256::digest(var_data)) {
        *to = from;
    }
    report_data
}

fn bound(pki: &Pki, params: &Params, claims: &Value) -> Result<(Report, Vec<u8>), SimulatedError> {
    let var_data = claims.to_string().into_bytes();
    let report_data = claims_data(&var_data);
    Ok((pki.report(&Params { report_data, ..params.clone() })?, var_data))
}

fn padded(mut report: Vec<u8>) -> Vec<u8> {
    report.resize(report.len().max(HCL_SIZE), 0);
    report
}

/// See [`protocols::hcl`].
fn hcl_report(kind: usize, hardware: &[u8], var_data: &[u8]) -> Vec<u8> {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let claims_size = 20 + var_data.len();
    let mut out = b"HCLA".to_vec();
    for value in [1, HARDWARE_END + claims_size, 2, 0, 0, 0, 0] {
        out.extend(number(value));
    }
    out.extend(hardware);
    out.resize(HARDWARE_END, 0);
    for value in [claims_size, 1, kind, 1, var_data.len()] {
        out.extend(number(value));
    }
    out.extend(var_data);
    out
}
