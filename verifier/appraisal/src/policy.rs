//! Appraisal policies: Rego of package `appraisal`, compiled once, that grade verified evidence.
//!
//! A policy defines `trust_vector`, an object of exactly the eight claims of [`TrustVector`], and may define `reasons`,
//! a set of texts for people. `input` is what [`Question`] says. `docs/appraisal-policy.md` tells the rest.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::events::Init;
use protocols::kbs::Tee;
use protocols::reason::{self, Refusal};
use protocols::register::RegisterKind;
use reference_values::References;
use regorus::Value;
use serde_json::json;
use verifier::EvidenceClaims;

use crate::claims;
use crate::ear::{COMPONENT, Ear, PROFILE, Submod, Tier, TrustVector, VerifierId};
use crate::rego::{self, Form, PolicyError, Rego};

/// The policy where configuration names none.
pub const BUILT_IN: &str = include_str!("built_in.rego");
/// What every policy must be.
const FORM: Form<'_> = Form { package: "appraisal", needs: "trust_vector", beside: None };
/// What is asked of one.
const VECTOR: &str = "data.appraisal.trust_vector";
const REASONS: &str = "data.appraisal.reasons";
/// What a policy is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The kind of evidence.
    pub tee: Tee,
    /// The evidence, verified.
    pub claims: &'a EvidenceClaims,
    /// The log's first record, where the log is held and bound to the evidence.
    pub init: Option<&'a Init>,
    /// Kinds of registers that the verifier's configuration accepts.
    pub registers: &'a [RegisterKind],
    /// What evidence is expected to have measured.
    pub references: &'a References,
    /// The verifier's environment.
    pub environment: Environment,
}

impl Question<'_> {
    fn input(&self) -> serde_json::Value {
        let measured: serde_json::Map<_, _> =
            claims::measured(self.claims).into_iter().map(|(name, value)| (name, value.into())).collect();
        json!({
            "tee": self.tee.as_str(),
            "environment": self.environment,
            "simulated": self.claims.simulated(),
            "register_kind": self.claims.register(),
            "register_told": self.claims.told(),
            "registers": self.registers,
            "claims": claims::of(self.claims),
            "init": self.init,
            "measured": measured,
            "reference": self.references.values(),
        })
    }
}

/// A graded result. Only [`AppraisalPolicy`] makes one, from verified evidence, and only of a tier that a session may have,
/// unless its policy is only watched:
///
/// ```compile_fail,E0451
/// let ear: appraisal::Ear = serde_json::from_str("{}").unwrap();
/// let forged = appraisal::Appraisal { ear };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appraisal {
    ear: Ear,
}

impl Appraisal {
    /// The result.
    #[must_use]
    pub const fn ear(&self) -> &Ear {
        &self.ear
    }

    /// Its status, affirming or warning (or any, where the policy was only watched): the worst of its components'.
    #[must_use]
    pub fn status(&self) -> Tier {
        self.ear.submods.values().map(|submod| submod.status).max().unwrap_or(Tier::None)
    }

    /// The same with the result for a device beside the platform, as component `name`; a component that is there keeps
    /// its own result.
    #[must_use]
    pub fn with_device(mut self, name: String, device: Self) -> Self {
        if let Some(submod) = device.ear.submods.into_values().next() {
            self.ear.submods.entry(name).or_insert(submod);
        }
        self
    }

    /// The same with one more member beside the platform's claims, which the policy was not asked about; a member that is
    /// there keeps its value.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: serde_json::Value) -> Self {
        let evidence = self.ear.submods.get_mut(COMPONENT).map(|submod| &mut submod.evidence);
        if let Some(serde_json::Value::Object(members)) = evidence {
            members.entry(name).or_insert(value);
        }
        self
    }
}

/// What a policy says of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grade {
    /// The vector's tier.
    pub tier: Tier,
    /// The vector.
    pub vector: TrustVector,
    /// The policy's reasons.
    pub reasons: Vec<String>,
}

/// The most answers remembered; then all are forgotten.
const MAX_KNOWN: usize = 1024;

/// What a policy says of an input.
type Said = (TrustVector, Vec<String>);

/// One policy, compiled.
#[derive(Debug)]
pub struct AppraisalPolicy {
    rego: Rego,
    /// What it said, by the digest of the whole input: it knows no clock and nothing else beside. A platform shows the same
    /// claims whenever it attests.
    said: Mutex<HashMap<Sha256Digest, Said>>,
}

impl AppraisalPolicy {
    /// Parses and prepares a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn compile(text: &str) -> Result<Self, PolicyError> {
        let rego = Rego::compile(text, &FORM)?;
        // What fails whatever it is asked fails here, not at every guest.
        let queries = if rego.has("reasons") { vec![VECTOR, REASONS] } else { vec![VECTOR] };
        rego.ask(json!({}), &queries).map_err(PolicyError::Rego)?;
        Ok(Self { rego, said: Mutex::default() })
    }

    /// SHA-256 of the policy's text.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.rego.digest()
    }

    /// Grades verified evidence.
    ///
    /// # Errors
    /// `evidence.appraisal` unless every claim of the vector is stated and its tier is affirming or warning.
    pub fn appraise(&self, question: &Question<'_>) -> Result<Appraisal, Refusal> {
        let (appraisal, refusal) = self.observe(question)?;
        refusal.map_or(Ok(appraisal), Err)
    }

    /// As [`Self::appraise`], with what it would refuse by a graded vector told beside a result of that grade: for verifiers
    /// that only watch their policy, and say so wherever they show the result.
    ///
    /// # Errors
    /// `evidence.appraisal` where the policy states no vector.
    pub fn observe(&self, question: &Question<'_>) -> Result<(Appraisal, Option<Refusal>), Refusal> {
        let refuse =
            |actual: String| Refusal::new(reason::EVIDENCE_APPRAISAL, "appraisal", "affirming, or warning", actual);
        let (vector, reasons) = self.evaluate(question.input()).map_err(refuse)?;
        let status = vector.tier();
        let refusal = (!matches!(status, Tier::Affirming | Tier::Warning)).then(|| {
            let vector = serde_json::to_string(&vector).unwrap_or_default();
            let because = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
            refuse(format!("{}{because} {vector}", status.as_str()))
        });
        let evidence = json!({ question.tee.as_str(): claims::of(question.claims) });
        let submod = Submod { status, vector, policy: self.digest().to_string(), evidence };
        let submods = [(COMPONENT.to_owned(), submod)].into();
        let ear = Ear { eat_profile: PROFILE.to_owned(), verifier: VerifierId::this(), submods };
        Ok((Appraisal { ear }, refusal))
    }

    /// Grades any input, for rehearsals: what comes of it is no [`Appraisal`].
    ///
    /// # Errors
    /// Why the policy gave no vector.
    pub fn grade(&self, input: serde_json::Value) -> Result<Grade, String> {
        let (vector, reasons) = self.evaluate(input)?;
        Ok(Grade { tier: vector.tier(), vector, reasons })
    }

    fn evaluate(&self, input: serde_json::Value) -> Result<Said, String> {
        let failed = |error: &dyn std::fmt::Display| format!("the policy could not be evaluated: {error}");
        let digest = Sha256Digest::of(&serde_json::to_vec(&input).map_err(|error| failed(&error))?);
        if let Some(said) = self.said().get(&digest) {
            return Ok(said.clone());
        }
        let said = self.ask(input)?;
        let mut known = self.said();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(digest, said.clone());
        Ok(said)
    }

    fn said(&self) -> MutexGuard<'_, HashMap<Sha256Digest, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, input: serde_json::Value) -> Result<Said, String> {
        let failed = |error: &dyn std::fmt::Display| format!("the policy could not be evaluated: {error}");
        let queries = if self.rego.has("reasons") { [VECTOR, REASONS].as_slice() } else { &[VECTOR] };
        let mut answers = self.rego.ask(input, queries).map_err(|error| failed(&error))?.into_iter();
        let vector = answers.next().unwrap_or(Value::Undefined);
        let vector = serde_json::to_value(vector).map_err(|error| failed(&error))?;
        let vector = serde_json::from_value(vector)
            .map_err(|error| failed(&format!("trust_vector is not the eight claims, each -128 to 127: {error}")))?;
        Ok((vector, rego::texts(&answers.next().unwrap_or(Value::Undefined))))
    }
}

#[cfg(test)]
mod tests;
