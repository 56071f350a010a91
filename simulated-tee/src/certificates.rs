//! The certificates: AMD's shapes (57230, VCEK Certificate and KDS Interface) with `O=SIMULATED`.

use std::str::FromStr as _;
use std::time::Duration;

use p384::ecdsa::SigningKey;
use protocols::snp::{Generation, TcbVersion};
use rsa::PrivateKey;
use rsa::pss;
use sha2::Sha384;
use x509_cert::Certificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{Ia5String, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::Validity;

use crate::{Chip, SimulatedError, files};

const ARK: &str = "OU=Engineering,C=US,L=Santa Clara,ST=CA,O=SIMULATED,CN=ARK-SIMULATED";
const ASK: &str = "OU=Engineering,C=US,L=Santa Clara,ST=CA,O=SIMULATED,CN=SEV-SIMULATED";
const ASVK: &str = "OU=Engineering,C=US,L=Santa Clara,ST=CA,O=SIMULATED,CN=SEV-VLEK-SIMULATED";
const VLEK: &str = "OU=Engineering,C=US,L=Santa Clara,ST=CA,O=SIMULATED,CN=SEV-VLEK";
const VCEK: &str = "OU=Engineering,C=US,L=Santa Clara,ST=CA,O=SIMULATED,CN=SEV-VCEK";

const STRUCT_VERSION: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.1");
const PRODUCT_NAME: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.2");
const BOOTLOADER: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.3");
/// Components without a meaning: always 0.
const SPARE: [ObjectIdentifier; 4] = [
    oid("1.3.6.1.4.1.3704.1.3.4"),
    oid("1.3.6.1.4.1.3704.1.3.5"),
    oid("1.3.6.1.4.1.3704.1.3.6"),
    oid("1.3.6.1.4.1.3704.1.3.7"),
];
const MICROCODE: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.8");
/// Turin only.
const FMC: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.3.9");
const HWID: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.5");

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const RSA_BITS: usize = 4096;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: u32 = 365 * 20;
const VCEK_LIFE: u32 = 365 * 7;

/// One installation's certificates and the one private key that is kept.
pub(crate) struct Made {
    pub(crate) ark: Vec<u8>,
    pub(crate) ask: Vec<u8>,
    pub(crate) vcek: Vec<u8>,
    pub(crate) key: SigningKey,
}

impl From<builder::Error> for SimulatedError {
    fn from(error: builder::Error) -> Self {
        Self::Make(error.to_string())
    }
}

impl From<x509_cert::der::Error> for SimulatedError {
    fn from(error: x509_cert::der::Error) -> Self {
        Self::Make(error.to_string())
    }
}

impl From<rsa::Error> for SimulatedError {
    fn from(error: rsa::Error) -> Self {
        Self::Make(error.to_string())
    }
}

impl From<x509_cert::spki::Error> for SimulatedError {
    fn from(error: x509_cert::spki::Error) -> Self {
        Self::Make(error.to_string())
    }
}

type RsaSigner = pss::SigningKey<Sha384>;

/// Makes both RSA keys side by side, a P-384 key, and the three certificates.
pub(crate) fn make(chip: &Chip, generation: Generation) -> Result<Made, SimulatedError> {
    let generate = || PrivateKey::new(&mut getrandom::SysRng, RSA_BITS).map(RsaSigner::new);
    let (ark_key, ask_key) = std::thread::scope(|scope| {
        let other = scope.spawn(generate);
        let mine = generate();
        (mine, other.join())
    });
    let ark_key = ark_key?;
    let ask_key = ask_key.map_err(|_| SimulatedError::Make("key generation stopped".to_owned()))??;
    let key = p384_key()?;

    let ark_spki = spki(&ark_key)?;
    let ask_spki = spki(&ask_key)?;
    let vcek_spki = SubjectPublicKeyInfoOwned::from_key(key.verifying_key())?;
    let (issuer, vek) = if chip.provider.is_some() { (ASVK, VLEK) } else { (ASK, VCEK) };
    Ok(Made {
        ark: certificate(ARK, ARK, authority(None)?, CA_LIFE, ark_spki, &ark_key)?,
        ask: certificate(issuer, ARK, authority(Some(0))?, CA_LIFE, ask_spki, &ark_key)?,
        vcek: certificate(vek, issuer, endorsement(chip, generation)?, VCEK_LIFE, vcek_spki, &ask_key)?,
        key,
    })
}

fn spki(key: &RsaSigner) -> Result<SubjectPublicKeyInfoOwned, SimulatedError> {
    use rsa::signature::Keypair as _;
    Ok(SubjectPublicKeyInfoOwned::from_key(&key.verifying_key())?)
}

fn p384_key() -> Result<SigningKey, SimulatedError> {
    loop {
        let mut seed = [0; 48];
        files::random(&mut seed)?;
        // A seed outside the field's order is drawn again.
        if let Ok(key) = SigningKey::from_slice(&seed) {
            return Ok(key);
        }
    }
}

/// Subject, issuer and exactly the given extensions.
struct Exactly {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Exactly {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

fn certificate(
    subject: &str,
    issuer: &str,
    extensions: Vec<Extension>,
    days: u32,
    key: SubjectPublicKeyInfoOwned,
    signer: &RsaSigner,
) -> Result<Vec<u8>, SimulatedError> {
    let mut serial = [0; 16];
    files::random(&mut serial)?;
    // DER wants a positive number without a leading zero byte.
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3F | 0x40;
    }
    let profile = Exactly { subject: Name::from_str(subject)?, issuer: Name::from_str(issuer)?, extensions };
    // A day before now: the clocks of attester and attestor may differ.
    let start = std::time::SystemTime::now() - DAY;
    let validity =
        Validity::new(x509_cert::time::Time::try_from(start)?, x509_cert::time::Time::try_from(start + DAY * days)?);
    let builder = CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, key)?;
    Ok(builder.build::<_, pss::Signature>(signer)?.to_der()?)
}

fn authority(path_len_constraint: Option<u8>) -> Result<Vec<Extension>, SimulatedError> {
    let subject = Name::default();
    Ok(vec![
        BasicConstraints { ca: true, path_len_constraint }.to_extension(&subject, &[])?,
        KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign).to_extension(&subject, &[])?,
    ])
}

/// What AMD states about a chip. Every value is DER but the hardware id, which is raw.
fn endorsement(chip: &Chip, generation: Generation) -> Result<Vec<Extension>, SimulatedError> {
    let plain = |extn_id, value: Vec<u8>| -> Result<Extension, SimulatedError> {
        Ok(Extension { extn_id, critical: false, extn_value: OctetString::new(value)? })
    };
    let number = |extn_id, value: u8| plain(extn_id, value.to_der()?);
    let (product, hwid_size) = match generation {
        Generation::Legacy => ("Milan-B0", 64),
        Generation::Turin => ("Turin-B0", 8),
    };
    let mut out = vec![
        number(STRUCT_VERSION, 0)?,
        plain(PRODUCT_NAME, Ia5String::new(product)?.to_der()?)?,
        number(BOOTLOADER, chip.tcb.bootloader)?,
        number(TEE, chip.tcb.tee)?,
    ];
    for spare in SPARE {
        out.push(number(spare, 0)?);
    }
    out.push(number(SNP, chip.tcb.snp)?);
    out.push(number(MICROCODE, chip.tcb.microcode)?);
    if let Some(fmc) = chip.tcb.fmc {
        out.push(number(FMC, fmc)?);
    }
    out.push(match &chip.provider {
        Some(provider) => plain(CSP_ID, Ia5String::new(provider)?.to_der()?)?,
        None => plain(HWID, chip.id.iter().copied().take(hwid_size).collect())?,
    });
    Ok(out)
}

/// Whether the certificate says that it is simulated.
pub(crate) fn is_simulated(certificate: &Certificate) -> bool {
    certificate.tbs_certificate().subject().to_string().split(',').any(|part| part == "O=SIMULATED")
}

/// Reads back what [`endorsement`] wrote.
pub(crate) fn chip(vcek: &Certificate) -> Option<Chip> {
    let extensions = vcek.tbs_certificate().extensions()?;
    let raw = |id| extensions.iter().find(|e| e.extn_id == id).map(|e| e.extn_value.as_bytes());
    let number = |id| u8::from_der(raw(id)?).ok();
    let mut id = [0; 64];
    let provider = match raw(CSP_ID) {
        Some(der) => Some(Ia5String::from_der(der).ok()?.to_string()),
        None => None,
    };
    let hwid = match (raw(HWID), &provider) {
        (Some(hwid), None) if matches!(hwid.len(), 8 | 64) => hwid,
        (None, Some(_)) => &[],
        _ => return None,
    };
    for (to, from) in id.iter_mut().zip(hwid) {
        *to = *from;
    }
    let fmc = match raw(FMC) {
        Some(_) => Some(number(FMC)?),
        None => None,
    };
    let tcb = TcbVersion {
        fmc,
        bootloader: number(BOOTLOADER)?,
        tee: number(TEE)?,
        snp: number(SNP)?,
        microcode: number(MICROCODE)?,
    };
    Some(Chip { id, tcb, provider })
}
