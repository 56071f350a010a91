//! From a report's VCEK to a pinned root, and from the VCEK to the chip that signed.
//!
//! AMD's extensions (57230, "Versioned Chip Endorsement Key Certificate and KDS Interface"): OID
//! 1.3.6.1.4.1.3704.1.3.N holds one component's version as an INTEGER, 1.3.6.1.4.1.3704.1.4 the hardware id,
//! raw. On Turin the hardware id has 8 bytes.

use protocols::kbs::SnpCertificate;
use protocols::reason::{self, Refusal};
use protocols::snp::{Generation, Report, TcbVersion};
use protocols::time::Timestamp;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;

use super::refuse;
use super::root::TrustedArk;
use crate::certificate::Certificate;
use crate::hex;

const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
/// The most certificates a table may carry.
const MAX_CERTIFICATES: usize = 16;

/// The certificates that came with a report, and the pinned roots. Nothing is checked before [`Chain::verify`].
pub(super) struct Chain<'r> {
    vcek: Certificate,
    point: Vec<u8>,
    asks: Vec<Certificate>,
    roots: &'r [TrustedArk],
}

impl<'r> Chain<'r> {
    /// Reads the certificate table: exactly one VCEK, any ASKs. An ARK in it counts for nothing.
    pub(super) fn of(table: &[SnpCertificate], roots: &'r [TrustedArk]) -> Result<Self, Refusal> {
        if table.len() > MAX_CERTIFICATES {
            let expected = format!("at most {MAX_CERTIFICATES} certificates");
            return Err(refuse(reason::EVIDENCE_MALFORMED, expected, table.len().to_string()));
        }
        let read = |kind: &str| -> Result<Vec<Certificate>, Refusal> {
            let of_kind = table.iter().filter(|entry| entry.cert_type == kind);
            of_kind
                .map(|entry| Certificate::parse(&entry.data))
                .collect::<Result<_, _>>()
                .map_err(|what| refuse(reason::EVIDENCE_CHAIN, format!("an {kind} certificate"), what))
        };
        let mut vceks = read("VCEK")?;
        let count = vceks.len();
        let Some(vcek) = vceks.pop().filter(|_| count == 1) else {
            let types: Vec<_> = table.iter().map(|entry| entry.cert_type.as_str()).collect();
            let actual = format!("certificates [{}]", types.join(", "));
            return Err(refuse(reason::EVIDENCE_CHAIN, "exactly one VCEK with the report", actual));
        };
        let Some(point) = vcek.p384_point().map(<[u8]>::to_vec) else {
            return Err(refuse(reason::EVIDENCE_CHAIN, "a VCEK with a P-384 key", "another kind of key"));
        };
        Ok(Self { vcek, point, asks: read("ASK")?, roots })
    }

    /// The VCEK's key.
    pub(super) fn vcek_point(&self) -> &[u8] {
        &self.point
    }

    /// Whether any certificate carries the mark, or the VCEK leads to a root that is known as simulated.
    pub(super) fn is_simulated(&self) -> bool {
        let marked = self.vcek.is_simulated() || self.asks.iter().any(Certificate::is_simulated);
        marked || self.paths().any(|(_, root, _)| root.simulated())
    }

    /// Every ASK in whose name the VCEK is issued, with the root in whose name the ASK is issued, and whether
    /// the root's signature over the ASK was checked before.
    fn paths(&self) -> impl Iterator<Item = (&Certificate, &'r TrustedArk, bool)> {
        self.roots.iter().flat_map(|root| {
            let known = root.intermediates().iter().map(move |ask| (ask, root, true));
            let shown = self.asks.iter().filter(|ask| ask.names_issuer(root.ark())).map(move |ask| (ask, root, false));
            known.chain(shown).filter(|(ask, _, _)| self.vcek.names_issuer(ask))
        })
    }

    /// Finds a pinned root that the VCEK leads to, with every signature and validity checked.
    pub(super) fn verify(&self, now: Timestamp) -> Result<&'r TrustedArk, Refusal> {
        let mut why = "no pinned root is in the chain of issuers";
        for (ask, root, checked) in self.paths() {
            let path = || {
                if !checked {
                    ask.check_signature(root.ark())?;
                }
                self.vcek.check_signature(ask)?;
                [&self.vcek, ask, root.ark()].iter().try_for_each(|certificate| certificate.check_validity(now))
            };
            match path() {
                Ok(()) => return Ok(root),
                Err(what) => why = what,
            }
        }
        Err(refuse(reason::EVIDENCE_CHAIN, format!("VCEK, ASK and a pinned ARK, valid at {now}"), why))
    }

    /// Checks that the VCEK is of the chip and TCB that the report names.
    pub(super) fn check_chip(&self, report: &Report) -> Result<(), Refusal> {
        let generation = report.generation();
        let fields = report.fields();
        let hardware_id = self.vcek.extension(HARDWARE_ID).unwrap_or_default();
        let (head, tail) = fields.chip_id.split_at(match generation {
            Generation::Legacy => 64,
            Generation::Turin => 8,
        });
        if hardware_id != head || tail.iter().any(|byte| *byte != 0) {
            let actual = format!("a VCEK of hardware id {}", hex(hardware_id));
            return Err(refuse(reason::EVIDENCE_CHAIN, format!("chip id {}", hex(&fields.chip_id)), actual));
        }
        match self.tcb(generation) {
            Some(tcb) if tcb == fields.reported_tcb => Ok(()),
            tcb => {
                let expected = format!("a VCEK of reported TCB {:?}", fields.reported_tcb);
                Err(refuse(reason::EVIDENCE_CHAIN, expected, format!("{tcb:?}")))
            }
        }
    }

    /// The VCEK's TCB, where all of its components and no other generation's are there.
    fn tcb(&self, generation: Generation) -> Option<TcbVersion> {
        let component = |oid| u8::from_der(self.vcek.extension(oid)?).ok();
        let fmc = match generation {
            Generation::Turin => Some(component(FMC)?),
            Generation::Legacy if self.vcek.has_extension(FMC) => return None,
            Generation::Legacy => None,
        };
        Some(TcbVersion {
            fmc,
            bootloader: component(BOOTLOADER)?,
            tee: component(TEE)?,
            snp: component(SNP)?,
            microcode: component(MICROCODE)?,
        })
    }
}
