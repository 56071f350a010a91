//! Devices beside a guest's platform: evidence of several kinds in one attestation.

use std::collections::BTreeMap;
use std::fmt;

use protocols::kbs::{RuntimeData, Tee, TeeEvidence};
use protocols::time::Timestamp;
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::Value;
use verifier::EvidenceClaims;

use crate::broker::{Broker, malformed};
use crate::error::BrokerError;
use crate::rules::Rules;

/// The most devices beside a platform.
const MAX_DEVICES: usize = 8;

/// A device whose evidence was verified.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its name among an attestation result's components.
    pub(crate) component: String,
    pub(crate) tee: Tee,
    pub(crate) claims: EvidenceClaims,
}

/// `additional_evidence`, by kind; a kind that is there twice is refused, not overwritten.
#[derive(Debug, Default)]
pub(crate) struct Beside(BTreeMap<Tee, Value>);

impl Beside {
    /// Reads what stands beside a platform's evidence, before anything of it is verified.
    pub(crate) fn read(evidence: &TeeEvidence, data: &RuntimeData) -> Result<Self, BrokerError> {
        let text = &evidence.additional_evidence;
        if text.is_empty() {
            return Ok(Self::default());
        }
        // Evidence over a log's head has one form, that of the platform alone.
        if data.log.is_some() {
            return Err(malformed("no additional evidence beside a log", "additional evidence".to_owned()));
        }
        let expected = "\"\", or JSON of evidence by kind, at most eight kinds";
        serde_json::from_str(text).map_err(|_| malformed(expected, "something else".to_owned()))
    }
}

impl<'de> Deserialize<'de> for Beside {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Beside;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of evidence by kind")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Beside, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((tee, evidence)) = map.next_entry()? {
                    if found.len() == MAX_DEVICES || found.insert(tee, evidence).is_some() {
                        return Err(A::Error::custom("too many devices, or one kind twice"));
                    }
                }
                Ok(Beside(found))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Broker {
    /// Verifies the evidence of devices, each over the runtime data alone. Their evidence as a whole is bound by the
    /// platform's.
    pub(crate) async fn devices(
        &self,
        rules: &Rules,
        Beside(shown): Beside,
        data: &RuntimeData,
        now: Timestamp,
    ) -> Result<Vec<Device>, BrokerError> {
        let binding =
            data.device_digest().map_err(|_| BrokerError::Internal("runtime data without a canonical form"))?;
        let mut devices = Vec::with_capacity(shown.len());
        let (mut cpus, mut gpus) = (1, 0);
        for (tee, evidence) in shown {
            let claims = self.judged(rules, tee, &evidence, &binding, now).await?;
            let (class, number) = if tee.is_device() { ("gpu", &mut gpus) } else { ("cpu", &mut cpus) };
            let component = format!("{class}{number}");
            *number += 1;
            devices.push(Device { component, tee, claims });
        }
        Ok(devices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_few_and_there_once() {
        let read = |text: &str| serde_json::from_str::<Beside>(text).map(|Beside(found)| found.len());
        assert_eq!(read("{}").unwrap(), 0);
        assert_eq!(read(r#"{"sampledevice":{"svn":"2"},"tpm":[]}"#).unwrap(), 2);
        for bad in [
            "",
            "[]",
            "null",
            "7",
            r#"{"abacus":{}}"#,
            r#"{"tpm":{},"tpm":{}}"#,
            r#"{"tpm":{}"#,
            r#"{"tpm":{}}{"#,
            r#"{"snp":1,"tdx":1,"az-snp-vtpm":1,"az-tdx-vtpm":1,"tpm":1,"sample":1,"sampledevice":1,"sgx":1,"cca":1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
