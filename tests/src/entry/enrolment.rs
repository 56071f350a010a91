//! What an enrolment reads: requests with their certificates, and a TPM's answers around its endorsement key.

use std::sync::OnceLock;

use protocols::enrolment::{EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest, EnrolmentSecret};
use protocols::time::Timestamp;
use protocols::tpm::{EkKind, activate_credential, create_primary_ek, policy_secret_endorsement, start_policy_session};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use verifier::enrolment::{EkRoots, challenge};

/// 2027-01-01, within the certificates' time.
const NOW: Timestamp = Timestamp(1_798_761_600);

/// A request, or anything else of an enrolment: only the two stored certificates are challenged.
///
/// # Panics
/// When another certificate is accepted.
pub fn enrolment(bytes: &[u8]) {
    let _ = (create_primary_ek(EkKind::EccP256).answer(bytes), start_policy_session().answer(bytes));
    let _ = policy_secret_endorsement(0).answer(bytes);
    let _ = activate_credential(0, 0, 0, &[], &[]).answer(bytes);
    let _ = serde_json::from_slice::<EnrolmentChallenge>(bytes).is_ok();
    let _ = serde_json::from_slice::<EnrolmentAnswer>(bytes).is_ok();
    let _ = serde_json::from_slice::<EnrolmentSecret>(bytes).is_ok();
    let Ok(request) = serde_json::from_slice::<EnrolmentRequest>(bytes) else { return };
    if challenge(&request, roots(), NOW, [0; 32], &mut getrandom::SysRng).is_ok() {
        let seeds = seeds();
        let mut known = seeds.iter().filter_map(|seed| serde_json::from_slice::<EnrolmentRequest>(seed).ok());
        assert!(known.any(|known| known.ek_certificate == request.ek_certificate));
    }
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/data/enrolment/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn roots() -> &'static EkRoots {
    static ROOTS: OnceLock<EkRoots> = OnceLock::new();
    ROOTS.get_or_init(|| EkRoots {
        certificates: ["root.pem", "mid.pem"]
            .iter()
            .map(|name| CertificateDer::from_pem_slice(&file(name)).unwrap().to_vec())
            .collect(),
        simulated: true,
    })
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let activated =
        [&[0x80, 2, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 8, 0, 6][..], &[7; 6], &[0, 0, 1, 0, 0], &[0, 0, 1, 0, 0]];
    vec![
        file("rsa2048.json"),
        file("ecc-p256.json"),
        activated.concat(),
        br#"{"ek":"ecc-p256","credential":"AAA=","encrypted_seed":"AAA="}"#.to_vec(),
    ]
}
