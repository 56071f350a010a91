use super::*;

const ROOT: &str = include_str!("../../../tests/data/enrolment/root.pem");
const ISSUER: &str = include_str!("../../../tests/data/enrolment/mid.pem");
const REQUESTS: [&str; 2] = [
    include_str!("../../../tests/data/enrolment/rsa2048.json"),
    include_str!("../../../tests/data/enrolment/ecc-p256.json"),
];
/// 2027-01-01, within the certificates' time.
const NOW: Timestamp = Timestamp(1_798_761_600);

fn request(text: &str) -> EnrolmentRequest {
    serde_json::from_str(text).unwrap()
}

fn roots(pems: &[&str]) -> EkRoots {
    let certificates =
        pems.iter().flat_map(|pem| crate::certificate::pem_certificates(pem).unwrap()).collect::<Vec<_>>();
    EkRoots { certificates, simulated: true }
}

fn try_at(request: &EnrolmentRequest, roots: &EkRoots, now: Timestamp) -> Result<EnrolmentSecret, reason::Code> {
    challenge(request, roots, now, [7; 32], &mut getrandom::SysRng)
        .map(|(_, kept)| kept)
        .map_err(|refusal| refusal.code)
}

fn code(request: &EnrolmentRequest, roots: &EkRoots) -> Result<EnrolmentSecret, reason::Code> {
    try_at(request, roots, NOW)
}

#[test]
fn an_issuer_without_usages_leads_to_the_root() {
    for text in REQUESTS {
        let request = request(text);
        let kept = code(&request, &roots(&[ROOT, ISSUER])).unwrap();
        assert_eq!(kept.ek_certificate, Sha256Digest::of(&request.ek_certificate));
        assert_eq!(code(&request, &roots(&[ROOT])), Err(reason::ENROL_ENDORSEMENT), "no issuer");
        assert_eq!(code(&request, &roots(&[ISSUER])), Err(reason::ENROL_ENDORSEMENT), "no root");
        for now in [Timestamp(1_780_000_000), Timestamp(2_500_000_000)] {
            assert_eq!(try_at(&request, &roots(&[ROOT, ISSUER]), now), Err(reason::ENROL_ENDORSEMENT), "{now:?}");
        }
    }
}

#[test]
fn a_certificate_of_the_chain_that_is_for_something_else_is_refused() {
    // The issuer's own certificate names no usage at all: it is not an endorsement certificate.
    let mut request = request(REQUESTS[0]);
    request.ek_certificate = roots(&[ISSUER]).certificates.remove(0);
    assert_eq!(code(&request, &roots(&[ROOT])), Err(reason::ENROL_ENDORSEMENT));
}

#[test]
fn each_changed_byte_of_a_certificate_is_refused() {
    for text in REQUESTS {
        let good = request(text);
        for place in 0..good.ek_certificate.len() {
            let mut request = good.clone();
            request.ek_certificate[place] ^= 1;
            assert_eq!(code(&request, &roots(&[ROOT, ISSUER])), Err(reason::ENROL_ENDORSEMENT), "{place}");
        }
    }
}

#[test]
fn what_is_simulated_is_enrolled_as_such_or_not_at_all() {
    let mut request = request(REQUESTS[0]);
    let real = EkRoots { simulated: false, ..roots(&[ROOT, ISSUER]) };
    assert_eq!(code(&request, &real), Err(reason::POLICY_ENVIRONMENT));
    request.simulated = false;
    assert!(!code(&request, &real).unwrap().simulated);
    // The operator's word counts, not the guest's.
    assert!(code(&request, &roots(&[ROOT, ISSUER])).unwrap().simulated);
    let folder = tempfile::tempdir().unwrap();
    let marked = simulated_tee::Pki::create(folder.path()).unwrap().ark_der().to_vec();
    let mut mixed = real;
    mixed.certificates.push(marked);
    assert_eq!(code(&request, &mixed), Err(reason::POLICY_ENVIRONMENT));
}

#[test]
fn only_the_secret_itself_is_an_answer() {
    let kept = code(&request(REQUESTS[1]), &roots(&[ROOT, ISSUER])).unwrap();
    let answered = |secret: &[u8]| enrol(&kept, &EnrolmentAnswer { secret: secret.to_vec() });
    let ak = answered(&[7; 32]).unwrap();
    assert_eq!((ak.enrolment, ak.simulated, &ak.spki_der), (Enrolment::Endorsed, true, &kept.ak_spki));
    for wrong in [&[][..], &[7; 31], &[7; 33], &[8; 32], &[0; 32]] {
        assert_eq!(answered(wrong).map_err(|refusal| refusal.code), Err(reason::ENROL_ANSWER));
    }
}
