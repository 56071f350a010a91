//! Evidence judged, with endorsements that it does not bring looked for elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use endorsements::{PlatformName, VekName};
use protocols::azure::AzureTdxEvidence;
use protocols::digest::Sha384Digest;
use protocols::kbs::{RuntimeData, SnpCertificate, SnpEvidence, TdxEvidence, Tee, TeeEvidence};
use protocols::reason::{self, Refusal};
use protocols::snp::Report;
use protocols::tdx::Quote;
use protocols::time::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;
use verifier::{AzureHardware, EvidenceClaims, TdxClaims, TdxCollateral};

use crate::broker::Broker;
use crate::endorse::{Endorser, Name};
use crate::error::BrokerError;
use crate::rules::Rules;

/// The most kinds of platforms whose collateral is renewed.
const MAX_SEEN: usize = 256;

/// A quote of each kind of platform that was accepted: what renewed collateral must verify too.
pub(crate) type Seen = Mutex<HashMap<String, (PlatformName, Vec<u8>)>>;

/// What evidence lacks.
enum Lacks {
    Vek(Name, Box<SnpEvidence>),
    Collateral(Name),
}

impl Broker {
    /// Verifies the platform's evidence over the runtime data and whatever stands beside it.
    pub(crate) async fn evidence(
        &self,
        rules: &Rules,
        tee: Tee,
        evidence: &TeeEvidence,
        data: &RuntimeData,
        now: Timestamp,
    ) -> Result<EvidenceClaims, BrokerError> {
        if tee.is_device() {
            let refusal = Refusal::new(reason::EVIDENCE_POLICY, "evidence", "a platform's", tee.as_str());
            return Err(refusal.into());
        }
        let binding = data
            .digest(&evidence.additional_evidence)
            .map_err(|_| BrokerError::Internal("runtime data without a canonical form"))?;
        self.judged(rules, tee, &evidence.primary_evidence, &binding, now).await
    }

    /// Verifies evidence over `binding` under `rules`, and, where it brings no endorsement, with one that is found
    /// elsewhere.
    pub(crate) async fn judged(
        &self,
        rules: &Rules,
        tee: Tee,
        shown: &Value,
        binding: &Sha384Digest,
        now: Timestamp,
    ) -> Result<EvidenceClaims, BrokerError> {
        let judged = rules.judge.verify(tee, shown, binding, now);
        let Some(endorser) = &rules.settings.endorser else { return Ok(judged?) };
        let claims = match judged {
            Ok(claims) => claims,
            Err(refusal) => Box::pin(self.endorsed(rules, endorser, (tee, shown, binding), refusal, now)).await?,
        };
        self.remember(&claims);
        Ok(claims)
    }

    /// Judges once more, with what was lacking; `refusal` where it is not to be had, or not for want of it.
    async fn endorsed(
        &self,
        rules: &Rules,
        endorser: &Endorser,
        (tee, shown, binding): (Tee, &Value, &Sha384Digest),
        refusal: Refusal,
        now: Timestamp,
    ) -> Result<EvidenceClaims, Refusal> {
        let Some(lacks) = lacks(tee, shown, &refusal) else { return Err(refusal) };
        let (Lacks::Vek(name, _) | Lacks::Collateral(name)) = &lacks;
        // The guest is told that it is wanting, our log why.
        let wanting = |why: &str| tracing::warn!(endorsement = name.file(), "wanting: {why}");
        let bytes = match endorser.find(name, now).await {
            Ok(bytes) => bytes,
            Err(why) => {
                wanting(&why);
                return Err(refusal);
            }
        };
        let claims = match &lacks {
            Lacks::Vek(_, shown) => {
                let mut shown = SnpEvidence::clone(shown);
                let vcek = SnpCertificate { cert_type: "VCEK".to_owned(), data: bytes.to_vec() };
                shown.cert_chain.get_or_insert_default().push(vcek);
                let Ok(whole) = serde_json::to_value(shown) else { return Err(refusal) };
                rules.judge.verify(tee, &whole, binding, now)?
            }
            Lacks::Collateral(_) => {
                let collateral = match TdxCollateral::parse(&bytes) {
                    Ok(collateral) => collateral,
                    Err(error) => {
                        wanting(&error.to_string());
                        return Err(refusal);
                    }
                };
                let claims = rules.judge.with_collateral(&collateral).verify(tee, shown, binding, now)?;
                self.adopt(&collateral);
                claims
            }
        };
        endorser.keep(name, bytes).await;
        Ok(claims)
    }

    /// Takes down whose collateral is needed from now on.
    fn remember(&self, claims: &EvidenceClaims) {
        let tdx: &TdxClaims = match claims {
            EvidenceClaims::Tdx(tdx) => tdx,
            EvidenceClaims::Azure(azure) => match azure.hardware() {
                AzureHardware::Tdx(tdx) => tdx,
                AzureHardware::Snp(_) => return,
            },
            EvidenceClaims::Snp(_) | EvidenceClaims::Tpm(_) | EvidenceClaims::Sample(_) => return,
        };
        let Ok(name) = PlatformName::of(tdx.quote()) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let file = name.file();
        if seen.len() < MAX_SEEN && !seen.contains_key(&file) {
            seen.insert(file, (name, tdx.quote().encode()));
        }
    }

    /// Renews the collateral of every kind of platform that was seen, where its life nears its end. To be called every now
    /// and then.
    pub async fn renew_endorsements(&self) {
        let (now, rules) = (self.now(), self.rules());
        let Some(endorser) = &rules.settings.endorser else { return };
        let seen: Vec<_> = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.values().cloned().collect()
        };
        for (name, quote) in seen {
            let name = Name::Platform(name);
            let not = |why: &dyn std::fmt::Display| tracing::warn!(endorsement = name.file(), "not renewed: {why}");
            let bytes = match endorser.renew(&name, now).await {
                Ok(bytes) => bytes,
                Err(why) => {
                    not(&why);
                    continue;
                }
            };
            let collateral = match TdxCollateral::parse(&bytes) {
                Ok(collateral) => collateral,
                Err(error) => {
                    not(&error);
                    continue;
                }
            };
            let policy = &rules.judge.policy().tdx;
            let mut like = policy.collateral.iter().filter(|known| known.is_like(&collateral));
            if like.clone().any(|known| known.window() == collateral.window()) {
                continue;
            }
            // A service that goes back in time would bring back what was revoked since.
            if like.any(|known| !collateral.supersedes(known)) {
                not(&"older than what is in force");
                continue;
            }
            match verifier::tdx::check_collateral(&quote, &collateral, policy, now) {
                Ok(()) => {
                    self.adopt(&collateral);
                    endorser.keep(&name, bytes).await;
                    tracing::info!(endorsement = name.file(), "renewed");
                }
                Err(refusal) => not(&refusal),
            }
        }
    }
}

/// What is wanting, where the refusal is for that and evidence says whose it is.
fn lacks(tee: Tee, evidence: &Value, refusal: &Refusal) -> Option<Lacks> {
    let of_quote = |quote: &[u8]| {
        let quote = Quote::parse(quote).ok()?;
        PlatformName::of(&quote).ok().map(|name| Lacks::Collateral(Name::Platform(name)))
    };
    match tee {
        Tee::Snp if [reason::EVIDENCE_CHAIN, reason::EVIDENCE_ENDORSEMENT].contains(&refusal.code) => {
            let shown = SnpEvidence::deserialize(evidence).ok()?;
            // What the guest brings is judged as it is, and never replaced.
            if shown.cert_chain.iter().flatten().any(|entry| ["VCEK", "VLEK"].contains(&entry.cert_type.as_str())) {
                return None;
            }
            let report = Report::from_json(&shown.attestation_report).ok()?;
            let name = VekName::of(&report, None).ok()?;
            Some(Lacks::Vek(Name::Vek(name), Box::new(shown)))
        }
        Tee::Tdx if refusal.code == reason::EVIDENCE_COLLATERAL => {
            of_quote(&TdxEvidence::deserialize(evidence).ok()?.quote)
        }
        Tee::AzTdxVtpm if refusal.code == reason::EVIDENCE_COLLATERAL => {
            of_quote(&AzureTdxEvidence::from_json(evidence).ok()?.td_quote)
        }
        _ => None,
    }
}
