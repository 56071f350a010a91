use super::*;
use crate::snp::testing::{ASK_SERIAL, CrlSpec, VEK_SERIAL};

fn with(crl: &[u8]) -> Result<TrustedArk, RootError> {
    root(false).with_crl(crl)
}

#[test]
fn a_list_that_the_root_did_not_sign_as_one_is_no_list() {
    type Change = fn(&mut CrlSpec);
    let cases: [(&str, Change); 6] = [
        ("not issued by the ARK", |c| c.issuer = ("Test", "ASK")),
        ("two different signature algorithms", |c| c.algorithm = tlv(0x30, &[&tlv(0x06, &[&[42, 3]])])),
        ("no time of the next list", |c| c.next_update = None),
        ("an unknown critical extension", |c| c.extensions = vec![extension("2.5.29.28", true, &[5, 0])]),
        ("an unknown critical extension of an entry", |c| c.entry_extensions = vec![extension("1.2.3", true, &[5, 0])]),
        ("not a DER revocation list", |c| c.this_update = "yesterday"),
    ];
    with(&CrlSpec::good().signed(&keys().ark)).unwrap();
    for (what, change) in cases {
        let mut crl = CrlSpec::good();
        change(&mut crl);
        assert_eq!(with(&crl.signed(&keys().ark)).unwrap_err(), RootError::Crl { what });
    }
    let stranger = CrlSpec::good().signed(&keys().ask);
    assert_eq!(with(&stranger).unwrap_err(), RootError::Crl { what: "the issuer's signature does not verify" });
    let mut longer = CrlSpec::good().signed(&keys().ark);
    longer.push(0);
    with(&longer).unwrap_err();
    let harmless = CrlSpec {
        extensions: vec![extension("2.5.29.20", false, &[2, 1, 1])],
        entry_extensions: vec![extension("2.5.29.29", true, &[0x30, 0])],
        ..CrlSpec::good()
    };
    with(&harmless.signed(&keys().ark)).unwrap();
    let signs_no_lists = Spec { extensions: vec![basic_constraints(true), key_usage(0b0000_0100)], ..Spec::ark() };
    let root = TrustedArk::from_pem(&pem(&[signs_no_lists.signed(&keys().ark)]), false, TcbVersion::default()).unwrap();
    let refused = root.with_crl(&CrlSpec::good().signed(&keys().ark)).unwrap_err();
    assert_eq!(refused, RootError::Crl { what: "the issuer may not sign revocation lists" });
}

#[test]
fn a_revoked_key_is_refused_and_a_list_must_be_current() {
    let run = |revoked: Vec<u8>, now: &str| {
        let crl =
            CrlSpec { revoked, this_update: "250101000000Z", next_update: Some("260101000000Z"), ..CrlSpec::good() };
        let policy = SnpPolicy { roots: vec![with(&crl.signed(&keys().ark)).unwrap()], ..policy() };
        word(verify_snp(&good_evidence(), &REPORT_DATA, &policy, Timestamp::parse(now).unwrap()))
    };
    assert_eq!(run(vec![99], "2025-06-01T00:00:00Z"), "pass");
    assert_eq!(run(vec![], "2025-06-01T00:00:00Z"), "pass");
    assert_eq!(run(vec![99, ASK_SERIAL], "2025-06-01T00:00:00Z"), "evidence.revoked");
    assert_eq!(run(vec![99, VEK_SERIAL], "2025-06-01T00:00:00Z"), "evidence.revoked");
    assert_eq!(run(vec![], "2024-12-31T23:59:59Z"), "evidence.crl");
    assert_eq!(run(vec![], "2025-01-01T00:00:00Z"), "pass");
    assert_eq!(run(vec![], "2026-01-01T00:00:00Z"), "pass");
    assert_eq!(run(vec![ASK_SERIAL], "2026-01-01T00:00:01Z"), "evidence.crl");
}
