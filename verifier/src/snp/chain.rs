//! From a report's VEK (VCEK or VLEK) to a pinned root, and from the VEK to the chip that signed.

mod extensions;

use std::sync::Arc;

use protocols::kbs::SnpCertificate;
use protocols::reason::{self, Refusal};
use protocols::snp::{Report, SigningKey, TcbVersion};
use protocols::time::Timestamp;

use super::crl::Crl;
use super::root::TrustedArk;
use super::{SUBJECT, SnpPolicy, check_environment, refuse};
use crate::certificate::Certificate;
use crate::trace::Trace;
use extensions::Endorsed;

/// The most certificates a table may carry.
const MAX_CERTIFICATES: usize = 16;

/// A VEK whose chain to a pinned root was verified. A judge of many reports of one chip may keep it: dates and
/// revocations are looked at again for each report.
#[derive(Debug, Clone)]
pub struct VerifiedVek {
    key: SigningKey,
    point: Vec<u8>,
    endorsed: Endorsed,
    /// The chain's common validity in seconds, both ends included.
    validity: (u64, u64),
    /// VEK, intermediate.
    serials: [Vec<u8>; 2],
    crl: Option<Arc<Crl>>,
    minimum_tcb: TcbVersion,
    simulated: bool,
}

impl VerifiedVek {
    /// Finds, among the certificates that came with a report, the one for the kind of key that signed, and its
    /// way to a pinned root. An ARK among them counts for nothing.
    ///
    /// # Errors
    /// `evidence.malformed`, `evidence.endorsement`, `evidence.chain`, `policy.environment`.
    pub fn verify(
        certificates: &[SnpCertificate],
        key: SigningKey,
        policy: &SnpPolicy,
        now: Timestamp,
        trace: &mut Trace,
    ) -> Result<Self, Refusal> {
        let shown = Shown::read(certificates, key, &policy.roots);
        let told = |_: &Shown<'_>| (format!("exactly one {}", key.as_str()), "one".to_owned());
        let shown = trace.outcome(("certificate", reason::EVIDENCE_ENDORSEMENT), shown, told)?;
        check_environment(shown.is_simulated(), policy, trace)?;
        let told = |vek: &Self| {
            let (start, end) = vek.validity;
            let expected = format!("{} under a pinned ARK, valid at {now}", key.as_str());
            (expected, format!("signatures verify; valid from {} to {}", Timestamp(start), Timestamp(end)))
        };
        trace.outcome(("chain", reason::EVIDENCE_CHAIN), shown.verify(key, now), told)
    }

    /// The P-384 point, uncompressed.
    pub(super) fn point(&self) -> &[u8] {
        &self.point
    }

    /// Whether a simulated root vouches for it.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.simulated
    }

    /// CSP_ID of a VLEK's provider; `None` for a VCEK.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.endorsed.provider.as_deref()
    }

    pub(super) const fn minimum_tcb(&self) -> TcbVersion {
        self.minimum_tcb
    }

    /// What may have changed since the chain was verified: the kind of key asked for, the time, the policy.
    pub(super) fn check_current(
        &self,
        key: SigningKey,
        policy: &SnpPolicy,
        now: Timestamp,
        trace: &mut Trace,
    ) -> Result<(), Refusal> {
        if key != self.key {
            return Err(refuse(reason::EVIDENCE_ENDORSEMENT, key.as_str(), self.key.as_str()));
        }
        let mut unseen = Trace::off();
        check_environment(self.simulated, policy, &mut unseen)?;
        let (start, end) = self.validity;
        if !(start..=end).contains(&now.0) {
            let expected = format!("{} chain valid at {now}", key.as_str());
            let actual = format!("valid from {} to {}", Timestamp(start), Timestamp(end));
            return Err(refuse(reason::EVIDENCE_CHAIN, expected, actual));
        }
        let Some(crl) = &self.crl else { return Ok(()) };
        trace.outcome(
            ("revocation list", reason::EVIDENCE_CRL),
            crl.check_current(now)
                .map_err(|what| refuse(reason::EVIDENCE_CRL, format!("a revocation list of {now}"), what)),
            |()| (format!("a revocation list of {now}"), "current".to_owned()),
        )?;
        let revoked = self.serials.iter().any(|serial| crl.names(serial));
        trace.require(
            (SUBJECT, "revocation", reason::EVIDENCE_REVOKED),
            !revoked,
            || "a chain without revoked keys".to_owned(),
            || (if revoked { "a revoked key" } else { "none is revoked" }).to_owned(),
        )
    }

    /// Checks that the VEK is of the chip or provider, and of the TCB, that the report names.
    pub(super) fn check_endorses(&self, report: &Report, trace: &mut Trace) -> Result<(), Refusal> {
        self.endorsed.check_chip(self.key, report, trace)?;
        self.endorsed.check_tcb(report, trace)
    }
}

/// What came with a report, read but not believed.
struct Shown<'r> {
    vek: Certificate,
    point: Vec<u8>,
    intermediates: Vec<Certificate>,
    roots: &'r [TrustedArk],
}

impl<'r> Shown<'r> {
    fn read(table: &[SnpCertificate], key: SigningKey, roots: &'r [TrustedArk]) -> Result<Self, Refusal> {
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
        let kind = key.as_str();
        let mut veks = read(kind)?;
        let count = veks.len();
        let Some(vek) = veks.pop().filter(|_| count == 1) else {
            let types: Vec<_> = table.iter().map(|entry| entry.cert_type.as_str()).collect();
            let other = types.iter().any(|name| ["VCEK", "VLEK"].contains(name) && *name != kind);
            let code = if other && count == 0 { reason::EVIDENCE_ENDORSEMENT } else { reason::EVIDENCE_CHAIN };
            let actual = format!("certificates [{}]", types.join(", "));
            return Err(refuse(code, format!("exactly one {kind} with the report"), actual));
        };
        let Some(point) = vek.p384_point().map(<[u8]>::to_vec) else {
            return Err(refuse(reason::EVIDENCE_CHAIN, format!("a {kind} with a P-384 key"), "another kind of key"));
        };
        let mut intermediates = read("ASK")?;
        intermediates.extend(read("ASVK")?);
        Ok(Self { vek, point, intermediates, roots })
    }

    /// Whether any certificate carries the mark, or the VEK leads to a root that is known as simulated.
    fn is_simulated(&self) -> bool {
        let marked = self.vek.is_simulated() || self.intermediates.iter().any(Certificate::is_simulated);
        marked || self.paths().any(|(_, root, _)| root.simulated())
    }

    /// Every intermediate in whose name the VEK is issued, with the root in whose name it is issued itself, and
    /// whether the root's signature over it was checked before.
    fn paths(&self) -> impl Iterator<Item = (&Certificate, &'r TrustedArk, bool)> {
        self.roots.iter().flat_map(|root| {
            let known = root.intermediates().iter().map(move |ask| (ask, root, true));
            let shown = self.intermediates.iter().filter(|ask| ask.names_issuer(root.ark()));
            known.chain(shown.map(move |ask| (ask, root, false))).filter(|(ask, _, _)| self.vek.names_issuer(ask))
        })
    }

    /// Finds a pinned root that the VEK leads to, with every signature and validity checked.
    fn verify(&self, key: SigningKey, now: Timestamp) -> Result<VerifiedVek, Refusal> {
        let mut why = "no pinned root is in the chain of issuers";
        for (ask, root, checked) in self.paths() {
            let path = || {
                if !checked {
                    ask.check_signature(root.ark())?;
                }
                self.vek.check_signature(ask)?;
                let validity = common([&self.vek, ask, root.ark()].map(Certificate::validity));
                match now.0 {
                    early if early < validity.0 => Err("not valid yet"),
                    late if late > validity.1 => Err("expired"),
                    _ => Ok(validity),
                }
            };
            match path() {
                Ok(validity) => {
                    return Ok(VerifiedVek {
                        key,
                        point: self.point.clone(),
                        endorsed: Endorsed::read(&self.vek),
                        validity,
                        serials: [&self.vek, ask].map(|certificate| certificate.serial().to_vec()),
                        crl: root.crl().cloned(),
                        minimum_tcb: root.minimum_tcb(),
                        simulated: self.is_simulated(),
                    });
                }
                Err(what) => why = what,
            }
        }
        let expected = format!("{}, its issuer and a pinned ARK, valid at {now}", key.as_str());
        Err(refuse(reason::EVIDENCE_CHAIN, expected, why))
    }
}

/// The time in which all are valid.
fn common(validities: [(u64, u64); 3]) -> (u64, u64) {
    validities.into_iter().fold((0, u64::MAX), |(start, end), (from, to)| (start.max(from), end.min(to)))
}
