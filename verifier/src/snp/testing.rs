//! Roots, chips and reports for tests: made anew in every run, so that no private key is ever stored.
//! Certificates are written as DER by hand, because most tests need wrong ones.

use std::sync::OnceLock;

use p384::ecdsa::signature::Signer as _;
use protocols::encoding::b64;
use protocols::kbs::{SnpCertificate, SnpEvidence};
use protocols::snp::{Fields, FirmwareVersion, Report, Signature, TcbVersion};
use rsa::pss;
use rsa::signature::{Keypair as _, RandomizedSigner as _, SignatureEncoding as _};
use sha2::Sha384;
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::{AllowedChips, ExpectedMeasurement, SnpPolicy, TrustedArk};
use protocols::environment::Environment;

pub(crate) const REPORT_DATA: [u8; 64] = [0x44; 64];
pub(crate) const MEASUREMENT: [u8; 48] = [0x5A; 48];
pub(crate) const REPORT_ID: [u8; 32] = [0x1D; 32];
pub(crate) const CHIP: [u8; 64] = [0xC1; 64];
pub(crate) const TCB: TcbVersion = TcbVersion { fmc: None, bootloader: 3, tee: 1, snp: 8, microcode: 0xD0 };

type RsaKey = pss::SigningKey<Sha384>;

/// The keys of this run.
pub(crate) struct Keys {
    pub(crate) ark: RsaKey,
    pub(crate) ask: RsaKey,
    pub(crate) vcek: p384::ecdsa::SigningKey,
}

pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let generate = || RsaKey::new(rsa::PrivateKey::new(&mut getrandom::SysRng, 4096).unwrap());
        let (ark, ask) = std::thread::scope(|scope| {
            let other = scope.spawn(generate);
            (generate(), other.join().unwrap())
        });
        Keys { ark, ask, vcek: p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap() }
    })
}

pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(u8::try_from(short).unwrap()),
        long => {
            out.push(0x82);
            out.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
            if long < 0x100 {
                out.truncate(1);
                out.extend_from_slice(&[0x81, u8::try_from(long).unwrap()]);
            }
        }
    }
    out.extend_from_slice(&content);
    out
}

fn oid(text: &str) -> Vec<u8> {
    ObjectIdentifier::new(text).unwrap().to_der().unwrap()
}

fn name(organization: &str, common_name: &str) -> Vec<u8> {
    let attribute = |id, text: &str| tlv(0x31, &[&tlv(0x30, &[&oid(id), &tlv(0x0C, &[text.as_bytes()])])]);
    tlv(0x30, &[&attribute("2.5.4.10", organization), &attribute("2.5.4.3", common_name)])
}

/// One extension; `value` is what the OCTET STRING holds.
pub(crate) fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(0x01, &[&[0xFF]]) } else { vec![] };
    tlv(0x30, &[&oid(id), &critical, &tlv(0x04, &[value])])
}

pub(crate) fn basic_constraints(ca: bool) -> Vec<u8> {
    let value = if ca { tlv(0x30, &[&[0x01, 0x01, 0xFF]]) } else { tlv(0x30, &[]) };
    extension("2.5.29.19", true, &value)
}

/// keyCertSign is bit 5, digitalSignature bit 0.
pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    extension("2.5.29.15", true, &tlv(0x03, &[&[bits.trailing_zeros().try_into().unwrap(), bits]]))
}

/// What a certificate says, good as the constructors give it.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: u8,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: (&'static str, &'static str),
    pub(crate) subject: (&'static str, &'static str),
    pub(crate) not_before: &'static str,
    pub(crate) not_after: &'static str,
    pub(crate) spki: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

const O: &str = "Test";
pub(crate) const ARK_SERIAL: u8 = 1;
pub(crate) const ASK_SERIAL: u8 = 2;
/// AMD gives VCEKs the serial number 0.
pub(crate) const VEK_SERIAL: u8 = 0;

fn rsa_pss() -> Vec<u8> {
    tlv(0x30, &[&oid("1.2.840.113549.1.1.10"), &tlv(0x30, &[])])
}

fn sign_rsa(signer: &RsaKey, tbs: &[u8]) -> Vec<u8> {
    signer.try_sign_with_rng(&mut getrandom::SysRng, tbs).unwrap().to_vec()
}

/// What a revocation list says, good as it stands.
#[derive(Clone)]
pub(crate) struct CrlSpec {
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: (&'static str, &'static str),
    pub(crate) this_update: &'static str,
    pub(crate) next_update: Option<&'static str>,
    pub(crate) revoked: Vec<u8>,
    /// Of every entry.
    pub(crate) entry_extensions: Vec<Vec<u8>>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl CrlSpec {
    /// Revokes a key of long ago.
    pub(crate) fn good() -> Self {
        Self {
            algorithm: rsa_pss(),
            issuer: (O, "ARK"),
            this_update: "200101000000Z",
            next_update: Some("400101000000Z"),
            revoked: vec![99],
            entry_extensions: vec![],
            extensions: vec![],
        }
    }

    pub(crate) fn signed(&self, signer: &RsaKey) -> Vec<u8> {
        let time = |text: &str| tlv(0x17, &[text.as_bytes()]);
        let listed = |extensions: &[Vec<u8>]| match extensions {
            [] => vec![],
            some => tlv(0x30, &some.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        };
        let entry = |serial: &u8| {
            let parts = [vec![0x02, 0x01, *serial], time("210101000000Z"), listed(&self.entry_extensions)];
            tlv(0x30, &parts.each_ref().map(Vec::as_slice))
        };
        let entries: Vec<Vec<u8>> = self.revoked.iter().map(entry).collect();
        let extensions = listed(&self.extensions);
        let tbs = tlv(
            0x30,
            &[
                &[0x02, 0x01, 0x01],
                &self.algorithm,
                &name(self.issuer.0, self.issuer.1),
                &time(self.this_update),
                &self.next_update.map(time).unwrap_or_default(),
                &listed(&entries),
                &if extensions.is_empty() { vec![] } else { tlv(0xA0, &[&extensions]) },
            ],
        );
        tlv(0x30, &[&tbs, &rsa_pss(), &tlv(0x03, &[&[0], &sign_rsa(signer, &tbs)])])
    }
}

impl Spec {
    fn new(serial: u8, issuer: &'static str, subject: &'static str, spki: Vec<u8>, extensions: Vec<Vec<u8>>) -> Self {
        Self {
            version: tlv(0xA0, &[&[0x02, 0x01, 0x02]]),
            serial,
            algorithm: rsa_pss(),
            issuer: (O, issuer),
            subject: (O, subject),
            not_before: "200101000000Z",
            not_after: "400101000000Z",
            spki,
            extensions,
        }
    }

    pub(crate) fn ark() -> Self {
        Self::new(
            ARK_SERIAL,
            "ARK",
            "ARK",
            rsa_spki(&keys().ark),
            vec![basic_constraints(true), key_usage(0b0000_0110)],
        )
    }

    pub(crate) fn ask() -> Self {
        Self::new(
            ASK_SERIAL,
            "ARK",
            "ASK",
            rsa_spki(&keys().ask),
            vec![basic_constraints(true), key_usage(0b0000_0100)],
        )
    }

    pub(crate) fn vcek(tcb: &TcbVersion, hardware_id: &[u8]) -> Self {
        let spki = SubjectPublicKeyInfoOwned::from_key(keys().vcek.verifying_key()).unwrap().to_der().unwrap();
        Self::new(VEK_SERIAL, "ASK", "VCEK", spki, chip_extensions(tcb, hardware_id))
    }

    /// Of the same key as the ASK, under another name.
    pub(crate) fn asvk() -> Self {
        Self { subject: (O, "ASVK"), ..Self::ask() }
    }

    pub(crate) fn vlek(tcb: &TcbVersion, provider: &str) -> Self {
        let mut extensions = chip_extensions(tcb, &[]);
        extensions.remove(HARDWARE_ID_PLACE);
        extensions.push(csp_id(provider));
        Self { issuer: (O, "ASVK"), subject: (O, "VLEK"), extensions, ..Self::vcek(tcb, &[]) }
    }

    pub(crate) fn signed(&self, signer: &RsaKey) -> Vec<u8> {
        let extensions: Vec<&[u8]> = self.extensions.iter().map(Vec::as_slice).collect();
        let time = |text: &str| tlv(0x17, &[text.as_bytes()]);
        let tbs = tlv(
            0x30,
            &[
                &self.version,
                &[0x02, 0x01, self.serial],
                &self.algorithm,
                &name(self.issuer.0, self.issuer.1),
                &tlv(0x30, &[&time(self.not_before), &time(self.not_after)]),
                &name(self.subject.0, self.subject.1),
                &self.spki,
                &tlv(0xA3, &[&tlv(0x30, &extensions)]),
            ],
        );
        tlv(0x30, &[&tbs, &self.algorithm, &tlv(0x03, &[&[0], &sign_rsa(signer, &tbs)])])
    }
}

pub(crate) fn rsa_spki(key: &RsaKey) -> Vec<u8> {
    SubjectPublicKeyInfoOwned::from_key(&key.verifying_key()).unwrap().to_der().unwrap()
}

pub(crate) fn component(number: u8, value: u8) -> Vec<u8> {
    extension(&format!("1.3.6.1.4.1.3704.1.3.{number}"), false, &value.to_der().unwrap())
}

/// Where [`chip_extensions`] has the hardware id.
pub(crate) const HARDWARE_ID_PLACE: usize = 4;

pub(crate) fn hardware_id(id: &[u8]) -> Vec<u8> {
    extension("1.3.6.1.4.1.3704.1.4", false, id)
}

pub(crate) fn csp_id(provider: &str) -> Vec<u8> {
    extension("1.3.6.1.4.1.3704.1.5", false, &tlv(0x16, &[provider.as_bytes()]))
}

pub(crate) fn chip_extensions(tcb: &TcbVersion, id: &[u8]) -> Vec<Vec<u8>> {
    let mut out = vec![
        component(1, tcb.bootloader),
        component(2, tcb.tee),
        component(3, tcb.snp),
        component(8, tcb.microcode),
        hardware_id(id),
    ];
    out.extend(tcb.fmc.map(|fmc| component(9, fmc)));
    out
}

/// A version 3 report of a Milan chip that passes.
pub(crate) fn fields() -> Fields {
    Fields {
        version: 3,
        guest_svn: 0,
        policy: 0x3_0000,
        family_id: [0; 16],
        image_id: [0; 16],
        vmpl: 0,
        sig_algo: 1,
        current_tcb: TCB,
        plat_info: 0,
        key_info: 0,
        report_data: REPORT_DATA,
        measurement: MEASUREMENT,
        host_data: [0x0A; 32],
        id_key_digest: [0; 48],
        author_key_digest: [0; 48],
        report_id: REPORT_ID,
        report_id_ma: [0xFF; 32],
        reported_tcb: TCB,
        cpuid_fam_id: Some(0x19),
        cpuid_mod_id: Some(1),
        cpuid_step: Some(1),
        chip_id: CHIP,
        committed_tcb: TCB,
        current: FirmwareVersion { major: 1, minor: 55, build: 3 },
        committed: FirmwareVersion { major: 1, minor: 55, build: 3 },
        launch_tcb: TCB,
        launch_mit_vector: None,
        current_mit_vector: None,
        signature: Signature::ZERO,
    }
}

/// Signs a report with the VCEK.
pub(crate) fn signed(mut fields: Fields) -> Report {
    let unsigned = Report::new(fields.clone()).unwrap();
    let signature: p384::ecdsa::Signature = keys().vcek.sign(unsigned.signed_bytes());
    let (r, s) = signature.split_bytes();
    fields.signature = Signature::from_p384(&r.into(), &s.into());
    Report::new(fields).unwrap()
}

pub(crate) fn entry(kind: &str, data: Vec<u8>) -> SnpCertificate {
    SnpCertificate { cert_type: kind.to_owned(), data }
}

/// Evidence with a chain: VCEK and ASK.
pub(crate) fn evidence(report: &Report, vcek: Vec<u8>) -> SnpEvidence {
    let chain = vec![entry("VCEK", vcek), entry("ASK", Spec::ask().signed(&keys().ark))];
    SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(chain) }
}

/// Evidence of [`fields`] that passes.
pub(crate) fn good_evidence() -> SnpEvidence {
    evidence(&signed(fields()), Spec::vcek(&TCB, &CHIP).signed(&keys().ask))
}

pub(crate) fn pem(ders: &[Vec<u8>]) -> String {
    let block = |der: &Vec<u8>| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", b64(der));
    ders.iter().map(block).collect()
}

pub(crate) fn root(simulated: bool) -> TrustedArk {
    TrustedArk::from_pem(&pem(&[Spec::ark().signed(&keys().ark)]), simulated, TcbVersion::default()).unwrap()
}

/// Production, with the test root in the place of AMD's.
pub(crate) fn policy() -> SnpPolicy {
    SnpPolicy {
        roots: vec![root(false)],
        measurements: ExpectedMeasurement::Listed(vec![MEASUREMENT]),
        vmpl: 0,
        chips: AllowedChips::AnyChip,
        providers: Vec::new(),
        environment: Environment::Production,
    }
}
