//! Attestation results: trustworthiness vectors of draft-ietf-rats-ar4si, carried as draft-ietf-rats-ear names them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `eat_profile` of our results.
pub const PROFILE: &str = "tag:trusted-container-launcher,2026:ear";
/// The platform, by the name that clients of the KBS protocol look for; devices beside it have names of their own.
pub const COMPONENT: &str = "cpu0";

/// The most components of a result.
pub const MAX_COMPONENTS: usize = 9;

/// A trustworthiness claim's tier, from its value. Ordered by how much it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Nothing is asserted (0), the evidence was not understood (1), or the verifier failed (-1).
    None,
    /// 2 to 31 and -2 to -32.
    Affirming,
    /// 32 to 95 and -33 to -96.
    Warning,
    /// 96 to 127 and -97 to -128.
    Contraindicated,
}

impl Tier {
    /// The tier of one value.
    #[must_use]
    pub const fn of(value: i8) -> Self {
        match value {
            -1..=1 => Self::None,
            2..=31 | -32..=-2 => Self::Affirming,
            32..=95 | -96..=-33 => Self::Warning,
            96..=127 | -128..=-97 => Self::Contraindicated,
        }
    }

    /// The name in tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}

/// The eight claims; every one is stated, 0 where nothing is asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrustVector {
    /// Whether the attester is one that is known.
    pub instance_identity: i8,
    /// How it is set up.
    pub configuration: i8,
    /// What booted and runs.
    pub executables: i8,
    /// What its file systems hold.
    pub file_system: i8,
    /// Hardware and firmware.
    pub hardware: i8,
    /// Whether its memory is hidden from the host.
    pub runtime_opaque: i8,
    /// Whether its stored secrets are.
    pub storage_opaque: i8,
    /// Where its inputs come from.
    pub sourced_data: i8,
}

impl TrustVector {
    const fn values(&self) -> [i8; 8] {
        [
            self.instance_identity,
            self.configuration,
            self.executables,
            self.file_system,
            self.hardware,
            self.runtime_opaque,
            self.storage_opaque,
            self.sourced_data,
        ]
    }

    /// The tier of the whole: the worst of its claims. A claim that failed (1 or -1) leaves the whole without a tier
    /// unless another contraindicates: it must not hide behind claims that affirm.
    #[must_use]
    pub fn tier(&self) -> Tier {
        let worst = self.values().into_iter().map(Tier::of).max().unwrap_or(Tier::None);
        let failed = self.values().into_iter().any(|value| value == 1 || value == -1);
        if failed && worst != Tier::Contraindicated { Tier::None } else { worst }
    }
}

/// Who appraised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierId {
    /// Who makes the verifier.
    pub developer: String,
    /// Which release of it.
    pub build: String,
}

impl VerifierId {
    /// This release.
    #[must_use]
    pub fn this() -> Self {
        Self {
            developer: "trusted-container-launcher".to_owned(),
            build: format!("verifier {}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// The result for one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submod {
    /// The vector's tier.
    #[serde(rename = "ear.status")]
    pub status: Tier,
    /// The vector.
    #[serde(rename = "ear.trustworthiness-vector")]
    pub vector: TrustVector,
    /// SHA-256 of the policy's text, `sha256:` and hex.
    #[serde(rename = "ear.appraisal-policy-id")]
    pub policy: String,
    /// The verified claims that the policy was asked about, by the kind of evidence.
    #[serde(rename = "ear.veraison.annotated-evidence")]
    pub evidence: Value,
}

/// The claims of an EAR beside those that every token of ours has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ear {
    /// [`PROFILE`].
    pub eat_profile: String,
    /// Who appraised.
    #[serde(rename = "ear.verifier-id")]
    pub verifier: VerifierId,
    /// Results by component: [`COMPONENT`], and devices beside it.
    pub submods: BTreeMap<String, Submod>,
}

impl Ear {
    /// Reads the claims of a result, whose signature somebody else has checked.
    ///
    /// # Errors
    /// [`EarError`]: not the profile, nothing of the platform, too many components, or a status that is not its vector's.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EarError> {
        let ear: Self = serde_json::from_slice(bytes).map_err(|_| EarError("not the JSON of one"))?;
        if ear.eat_profile != PROFILE {
            return Err(EarError("of another profile"));
        }
        if !ear.submods.contains_key(COMPONENT) || ear.submods.len() > MAX_COMPONENTS {
            return Err(EarError("not of the platform and a few devices"));
        }
        if ear.submods.values().any(|submod| submod.status != submod.vector.tier()) {
            return Err(EarError("of a status that is not its vector's"));
        }
        Ok(ear)
    }
}

/// Bytes that are no result of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the attestation result is {0}")]
pub struct EarError(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: TrustVector = TrustVector {
        instance_identity: 2,
        configuration: 2,
        executables: 3,
        file_system: 0,
        hardware: 2,
        runtime_opaque: 2,
        storage_opaque: 0,
        sourced_data: 0,
    };

    #[test]
    fn every_value_has_the_drafts_tier() {
        for (values, tier) in [
            (vec![-1, 0, 1], Tier::None),
            (vec![2, 31, -2, -32], Tier::Affirming),
            (vec![32, 95, -33, -96], Tier::Warning),
            (vec![96, 127, -97, -128], Tier::Contraindicated),
        ] {
            for value in values {
                assert_eq!(Tier::of(value), tier, "{value}");
            }
        }
    }

    #[test]
    fn the_worst_claim_decides_and_one_that_failed_is_not_outvoted() {
        assert_eq!(GOOD.tier(), Tier::Affirming);
        assert_eq!(TrustVector { executables: 33, ..GOOD }.tier(), Tier::Warning);
        assert_eq!(TrustVector { executables: 33, hardware: 97, ..GOOD }.tier(), Tier::Contraindicated);
        assert_eq!(TrustVector { executables: 1, ..GOOD }.tier(), Tier::None);
        assert_eq!(TrustVector { executables: -1, configuration: 36, ..GOOD }.tier(), Tier::None);
        assert_eq!(TrustVector { executables: -1, hardware: 97, ..GOOD }.tier(), Tier::Contraindicated);
    }

    #[test]
    fn a_status_that_is_not_the_vectors_is_no_result() {
        let submod = |status| Submod { status, vector: GOOD, policy: "p".into(), evidence: Value::Null };
        let ear = |submods: &[(&str, Tier)]| {
            let submods = submods.iter().map(|(name, status)| ((*name).to_owned(), submod(*status))).collect();
            let ear = Ear { eat_profile: PROFILE.into(), verifier: VerifierId::this(), submods };
            Ear::from_json(&serde_json::to_vec(&ear).unwrap()).map(|_| ())
        };
        ear(&[("cpu0", Tier::Affirming)]).unwrap();
        ear(&[("cpu0", Tier::Affirming), ("gpu0", Tier::Affirming)]).unwrap();
        let beside = [("cpu0", Tier::Affirming), ("gpu0", Tier::Warning)];
        for wrong in [&[("cpu0", Tier::Warning)][..], &[], &[("gpu0", Tier::Affirming)], &beside] {
            ear(wrong).unwrap_err();
        }
        let names: Vec<String> = (0..MAX_COMPONENTS).map(|n| format!("gpu{n}")).collect();
        let mut many = vec![("cpu0", Tier::Affirming)];
        many.extend(names.iter().map(|name| (name.as_str(), Tier::Affirming)));
        ear(&many).unwrap_err();
        ear(&many[..MAX_COMPONENTS]).unwrap();
    }
}
