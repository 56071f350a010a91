use dcap_qvl::verify::QuoteVerifier;
use protocols::tdx::{PckChain, Quote};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000);

/// Another implementation, which knows nothing of ours, finds the platform up to date.
#[test]
fn quotes_of_every_layout_verify_elsewhere() {
    let platform = Platform::new(NOW).unwrap();
    let collateral = platform.collateral(&CollateralFacts::new(&platform, NOW));
    let collateral = serde_json::from_str(&collateral).unwrap();
    let verifier = QuoteVerifier::new(platform.root_der());
    for body in [Body::V4, Body::V5Report10, Body::V5Report15] {
        let quote = platform.quote(&Params::new(body, [0x44; 64])).unwrap();
        let bytes = quote.encode();
        assert_eq!(Quote::parse(&bytes), Ok(quote));
        let report = verifier.verify(&bytes, &collateral, NOW.0).unwrap_or_else(|error| panic!("{body:?}: {error:#}"));
        assert_eq!((report.status.as_str(), report.advisory_ids), ("UpToDate", vec![]));
    }
    let other = QuoteVerifier::new(Platform::new(NOW).unwrap().root_der());
    let quote = platform.quote(&Params::new(Body::V4, [0x44; 64])).unwrap().encode();
    other.verify(&quote, &collateral, NOW.0).unwrap_err();
}

#[test]
fn an_installation_is_kept_without_its_authorities() {
    let dir = tempfile::tempdir().unwrap();
    let made = Machine::create(dir.path()).unwrap();
    let read = Machine::open(dir.path()).unwrap();
    let params = Params::new(Body::V5Report15, [1; 64]);
    assert_eq!(made.quote(&params), read.quote(&params), "signatures are RFC 6979's");
    assert!(matches!(Machine::create(dir.path()), Err(SimulatedError::File { .. })), "nothing is written over");
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["tdx-attestation.key", "tdx-collateral.json", "tdx-pck.key", "tdx-pck.pem", "tdx-root.pem"]);

    let root = std::fs::read(dir.path().join("tdx-root.pem")).unwrap();
    let root = PckChain::parse(&root).unwrap().last().to_vec();
    let collateral = std::fs::read(dir.path().join("tdx-collateral.json")).unwrap();
    let collateral = serde_json::from_slice(&collateral).unwrap();
    QuoteVerifier::new(root).verify(&read.quote(&params).encode(), &collateral, Timestamp::now().0).unwrap();
}

#[test]
fn files_of_another_making_are_refused() {
    let one = tempfile::tempdir().unwrap();
    let two = tempfile::tempdir().unwrap();
    Machine::create(one.path()).unwrap();
    Machine::create(two.path()).unwrap();
    std::fs::copy(two.path().join("tdx-pck.key"), one.path().join("tdx-pck.key")).unwrap();
    assert!(matches!(
        Machine::open(one.path()),
        Err(SimulatedError::Malformed { what: "not the PCK certificate's key", .. })
    ));
    std::fs::write(one.path().join("tdx-pck.pem"), "text").unwrap();
    assert!(matches!(Machine::open(one.path()), Err(SimulatedError::Malformed { what: "not a PCK chain", .. })));
    std::fs::remove_file(two.path().join("tdx-attestation.key")).unwrap();
    assert!(matches!(Machine::open(two.path()), Err(SimulatedError::File { .. })));
}
