//! Sample evidence: what CoCo's agents send where they find no TEE. Nobody vouches for a word of it; it shows that a
//! client speaks the protocol, and nothing else.

use protocols::digest::Sha384Digest;
use protocols::environment::Environment;
use protocols::kbs::{SampleEvidence, Tee};
use protocols::reason::{self, Refusal};

use crate::evidence::unverified;

/// The longest security version that is taken down, in bytes.
const MAX_SVN: usize = 32;

/// Whether sample evidence counts at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplePolicy {
    /// It does not: there is no evidence in it.
    Refused,
    /// It does, in development alone, and is stamped simulated.
    Accepted,
}

/// What sample evidence says of itself. Only [`verify_sample`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleClaims {
    svn: String,
}

impl SampleClaims {
    /// The security version it gives itself.
    #[must_use]
    pub fn svn(&self) -> &str {
        &self.svn
    }
}

/// Looks whether sample evidence is over this binding.
///
/// # Errors
/// `evidence.policy` where it does not count, `policy.environment` in production whatever else is said,
/// `evidence.malformed`, `evidence.nonce`.
pub fn verify_sample(
    tee: Tee,
    evidence: &SampleEvidence,
    binding: &Sha384Digest,
    policy: SamplePolicy,
    environment: Environment,
) -> Result<SampleClaims, Refusal> {
    if policy == SamplePolicy::Refused {
        return Err(unverified(tee));
    }
    if environment == Environment::Production {
        let expected = "a real platform";
        return Err(Refusal::new(reason::POLICY_ENVIRONMENT, "evidence", expected, "sample evidence"));
    }
    let SampleEvidence { svn, report_data } = evidence;
    if svn.len() > MAX_SVN || !svn.bytes().all(|byte| byte.is_ascii_graphic()) {
        let expected = "a short printable svn";
        return Err(Refusal::new(reason::EVIDENCE_MALFORMED, "evidence", expected, "another"));
    }
    if report_data.as_slice() != binding.as_bytes() {
        let expected = format!("report_data {binding}");
        return Err(Refusal::new(reason::EVIDENCE_NONCE, "evidence", expected, crate::hex(report_data)));
    }
    Ok(SampleClaims { svn: svn.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(evidence: SampleEvidence, policy: SamplePolicy, environment: Environment) -> &'static str {
        let binding = Sha384Digest::of(b"runtime data");
        let judged = verify_sample(Tee::Sample, &evidence, &binding, policy, environment);
        judged.map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
    }

    #[test]
    fn it_counts_by_name_in_development_over_this_binding_alone() {
        use Environment::{Development, Production};
        use SamplePolicy::{Accepted, Refused};
        let binding = Sha384Digest::of(b"runtime data").as_bytes().to_vec();
        let good = SampleEvidence { svn: "1".into(), report_data: binding.clone() };
        assert_eq!(run(good.clone(), Accepted, Development), "pass");
        assert_eq!(run(good.clone(), Refused, Development), "evidence.policy");
        assert_eq!(run(good.clone(), Refused, Production), "evidence.policy");
        assert_eq!(run(good.clone(), Accepted, Production), "policy.environment");
        let padded = [binding.as_slice(), &[0; 16]].concat();
        for report_data in [Vec::new(), binding[..47].to_vec(), padded, vec![0; 48]] {
            assert_eq!(run(SampleEvidence { report_data, ..good.clone() }, Accepted, Development), "evidence.nonce");
        }
        for svn in ["x".repeat(33), "a b".into(), "\n".into()] {
            assert_eq!(run(SampleEvidence { svn, ..good.clone() }, Accepted, Development), "evidence.malformed");
        }
    }
}
