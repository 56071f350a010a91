//! One judge of much evidence: a policy, and what it has found out under it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::kbs::{self, SnpCertificate, SnpEvidence, Tee};
use protocols::reason::Refusal;
use protocols::snp::SigningKey;
use protocols::time::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use crate::evidence::{EvidenceClaims, EvidencePolicy, malformed, verify_evidence};
use crate::snp::{VerifiedVek, verify_snp_by};
use crate::tdx::TdxCollateral;
use crate::trace::Trace;

/// The most chips whose keys are kept; a judge that meets more begins anew.
const MAX_KEPT: usize = 1024;
/// The most collateral that is taken in; the oldest goes first.
const MAX_COLLATERAL: usize = 256;

/// Verifies evidence under one policy, and keeps the keys of chips whose chains it has verified: a guest shows the same
/// one with every delivery. Dates, revocation lists and policy are looked at for each report all the same.
#[derive(Debug)]
pub struct Judge {
    policy: EvidencePolicy,
    veks: Mutex<HashMap<Sha256Digest, Arc<VerifiedVek>>>,
}

impl Judge {
    /// A judge that has met nobody.
    #[must_use]
    pub fn new(policy: EvidencePolicy) -> Self {
        Self { policy, veks: Mutex::default() }
    }

    /// The same judge with one platform's collateral more, in place of what it supersedes; what is newer stays. Only platforms whose
    /// roots policy names profit from it.
    #[must_use]
    pub fn with_collateral(&self, collateral: &TdxCollateral) -> Self {
        let mut policy = self.policy.clone();
        for known in [&mut policy.tdx.collateral, &mut policy.azure_tdx.tdx.collateral] {
            known.retain(|known| !collateral.supersedes(known));
            if known.len() >= MAX_COLLATERAL {
                known.remove(0);
            }
            known.push(collateral.clone());
        }
        let veks = self.veks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { policy, veks: Mutex::new(veks) }
    }

    /// What it judges by, for good.
    #[must_use]
    pub const fn policy(&self) -> &EvidencePolicy {
        &self.policy
    }

    /// As [`verify_evidence`], under this judge's policy.
    ///
    /// # Errors
    /// As [`verify_evidence`].
    pub fn verify(
        &self,
        tee: Tee,
        evidence: &Value,
        binding: &Sha384Digest,
        now: Timestamp,
    ) -> Result<EvidenceClaims, Refusal> {
        if tee != Tee::Snp {
            return verify_evidence(tee, evidence, binding, &self.policy, now);
        }
        let evidence = SnpEvidence::deserialize(evidence).map_err(|error| malformed(tee, &error))?;
        let vek = |certificates: &[SnpCertificate], key| self.vek(certificates, key, now);
        let claims = verify_snp_by(&evidence, &kbs::report_data(binding), &self.policy.snp, now, vek)?;
        Ok(EvidenceClaims::Snp(Box::new(claims)))
    }

    fn vek(
        &self,
        certificates: &[SnpCertificate],
        key: SigningKey,
        now: Timestamp,
    ) -> Result<Arc<VerifiedVek>, Refusal> {
        let shown = shown(certificates, key);
        if let Some(known) = self.veks.lock().unwrap_or_else(PoisonError::into_inner).get(&shown) {
            return Ok(Arc::clone(known));
        }
        let vek = Arc::new(VerifiedVek::verify(certificates, key, &self.policy.snp, now, &mut Trace::off())?);
        let mut veks = self.veks.lock().unwrap_or_else(PoisonError::into_inner);
        if veks.len() >= MAX_KEPT {
            veks.clear();
        }
        veks.insert(shown, Arc::clone(&vek));
        Ok(vek)
    }
}

/// Names exactly these certificates in this order, and the kind of key that was asked for.
fn shown(certificates: &[SnpCertificate], key: SigningKey) -> Sha256Digest {
    let mut text = Vec::from(key.as_str());
    for certificate in certificates {
        for part in [certificate.cert_type.as_bytes(), &certificate.data] {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
    }
    Sha256Digest::of(&text)
}

#[cfg(test)]
mod tests;
