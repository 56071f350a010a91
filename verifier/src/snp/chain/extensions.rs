//! What a VEK's certificate says of the chip or provider it is for.
//!
//! AMD's extensions (57230, "Versioned Chip Endorsement Key Certificate and KDS Interface"): OID
//! 1.3.6.1.4.1.3704.1.3.N holds one component's version as an INTEGER; 1.3.6.1.4.1.3704.1.4 the hardware id,
//! raw, of 64 bytes, on Turin of 8; 1.3.6.1.4.1.3704.1.5 a VLEK's CSP_ID as a string.

use protocols::reason::{self, Refusal};
use protocols::snp::{Generation, Report, SigningKey, TcbVersion};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, Utf8StringRef};

use super::SUBJECT;
use crate::certificate::Certificate;
use crate::hex;
use crate::trace::Trace;

const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// The extensions, read but not judged. What is there twice, or not as it should be, is absent here.
#[derive(Debug, Clone)]
pub(super) struct Endorsed {
    hardware_id: Option<Vec<u8>>,
    has_hardware_id: bool,
    pub(super) provider: Option<String>,
    has_provider: bool,
    fmc: Option<u8>,
    has_fmc: bool,
    /// Boot loader, TEE, SNP, microcode.
    components: Option<[u8; 4]>,
}

impl Endorsed {
    pub(super) fn read(vek: &Certificate) -> Self {
        let component = |oid| u8::from_der(vek.extension(oid)?).ok();
        let components = || Some([component(BOOTLOADER)?, component(TEE)?, component(SNP)?, component(MICROCODE)?]);
        let provider = vek.extension(CSP_ID).and_then(|der| {
            let ia5 = Ia5StringRef::from_der(der).map(|text| text.as_str().to_owned());
            ia5.or_else(|_| Utf8StringRef::from_der(der).map(|text| text.as_str().to_owned())).ok()
        });
        Self {
            hardware_id: vek.extension(HARDWARE_ID).map(<[u8]>::to_vec),
            has_hardware_id: vek.has_extension(HARDWARE_ID),
            provider: provider.filter(|provider| !provider.is_empty()),
            has_provider: vek.has_extension(CSP_ID),
            fmc: component(FMC),
            has_fmc: vek.has_extension(FMC),
            components: components(),
        }
    }

    /// A VCEK is of one chip, a VLEK of one provider and no chip.
    pub(super) fn check_chip(&self, key: SigningKey, report: &Report, trace: &mut Trace) -> Result<(), Refusal> {
        let chip_id = &report.fields().chip_id;
        let (head, tail) = chip_id.split_at(match report.generation() {
            Generation::Legacy => 64,
            Generation::Turin => 8,
        });
        let passed = match key {
            SigningKey::Vcek => {
                let same = self.hardware_id.as_deref() == Some(head) && tail.iter().all(|byte| *byte == 0);
                same && !self.has_provider
            }
            SigningKey::Vlek => self.provider.is_some() && !self.has_hardware_id,
        };
        trace.require(
            (SUBJECT, "endorsed chip", reason::EVIDENCE_ENDORSEMENT),
            passed,
            || match key {
                SigningKey::Vcek => format!("a VCEK of chip id {}", hex(chip_id)),
                SigningKey::Vlek => "a VLEK of a provider, without a hardware id".to_owned(),
            },
            || match (&self.hardware_id, &self.provider) {
                (Some(id), None) => format!("hardware id {}", hex(id)),
                (None, Some(provider)) => format!("provider {provider}"),
                (Some(id), Some(provider)) => format!("hardware id {} and provider {provider}", hex(id)),
                (None, None) => "neither hardware id nor provider".to_owned(),
            },
        )
    }

    pub(super) fn check_tcb(&self, report: &Report, trace: &mut Trace) -> Result<(), Refusal> {
        let reported = report.fields().reported_tcb;
        let tcb = self.tcb(report.generation());
        trace.require(
            (SUBJECT, "endorsed TCB", reason::EVIDENCE_ENDORSEMENT),
            tcb == Some(reported),
            || format!("an endorsement of the reported TCB, {reported}"),
            || tcb.map_or_else(|| "not the components of this generation".to_owned(), |tcb| tcb.to_string()),
        )
    }

    /// The TCB, where all of its components and no other generation's are there.
    fn tcb(&self, generation: Generation) -> Option<TcbVersion> {
        let fmc = match generation {
            Generation::Turin => Some(self.fmc?),
            Generation::Legacy if self.has_fmc => return None,
            Generation::Legacy => None,
        };
        let [bootloader, tee, snp, microcode] = self.components?;
        Some(TcbVersion { fmc, bootloader, tee, snp, microcode })
    }
}
