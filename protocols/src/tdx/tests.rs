use proptest::prelude::*;

use super::*;

/// A real quote, followed by 70 zero bytes of the buffer it came in.
const PADDED: &[u8] = include_bytes!("../../../tests/data/vectors/tdx/tdx_quote");
/// A real quote of a debug TD.
const DEBUG: &[u8] = include_bytes!("../../../tests/data/vectors/tdx/tdx_quote_4.dat");

fn real() -> Quote {
    Quote::parse(trim(PADDED).unwrap()).unwrap()
}

/// The real quote in version 5, over TD report 1.5 where `v15`.
fn version_5(v15: bool) -> Quote {
    let mut quote = real();
    quote.header.version = QuoteVersion::V5;
    quote.report.v15 = v15.then_some(TdReport15 { tee_tcb_svn2: [2; 16], mr_service_td: [3; 48] });
    quote
}

#[test]
fn real_quotes_are_read_and_written_again() {
    for bytes in [trim(PADDED).unwrap(), DEBUG] {
        let quote = Quote::parse(bytes).unwrap();
        assert_eq!(quote.encode(), bytes);
        assert_eq!(quote.signature.pck_chain.certificates().len(), 3);
        assert_eq!(quote.signature.qe_report.isv_prod_id, 2);
    }
    let quote = real();
    assert_eq!(quote.report.td_attributes.to_string(), "0x10000000 (SEPT_VE_DISABLE)");
    assert!(quote.report.xfam.to_string().contains(" (FP SSE AVX AVX512_OPMASK"), "{}", quote.report.xfam);
    assert_eq!(quote.report.tee_tcb_svn[..3], [6, 1, 3]);
    let debug = Quote::parse(DEBUG).unwrap();
    assert_eq!(debug.report.td_attributes.to_string(), "0x10000001 (DEBUG SEPT_VE_DISABLE)");
    assert_eq!(TdAttributes(1 << 40).to_string(), "0x10000000000 (bit-40)");
    assert_eq!(TdAttributes(0).to_string(), "0x0");
}

#[test]
fn version_5_states_the_reports_type() {
    for (v15, size) in [(false, REPORT_10_SIZE), (true, REPORT_15_SIZE)] {
        let quote = version_5(v15);
        assert_eq!(quote.report.encode().len(), size);
        assert_eq!(quote.signed_bytes().len(), 48 + 6 + size);
        assert_eq!(Quote::parse(&quote.encode()), Ok(quote));
    }
}

#[test]
fn lengths_are_exact() {
    for quote in [real(), version_5(false), version_5(true)] {
        let bytes = quote.encode();
        for end in 0..bytes.len() {
            assert!(Quote::parse(bytes.get(..end).unwrap()).is_err(), "{end}");
        }
        assert_eq!(Quote::parse(&[bytes.as_slice(), &[0]].concat()), Err(TdxError::Trailing(1)));
    }
    assert_eq!(Quote::parse(PADDED), Err(TdxError::Trailing(70)));
    assert_eq!(trim(&[DEBUG, &[0; 9]].concat()), Ok(DEBUG));
    assert_eq!(trim(&[DEBUG, &[0, 0, 1]].concat()), Err(TdxError::Trailing(3)));
}

#[test]
fn each_number_of_the_frame_is_checked() {
    let v4 = real().encode();
    let v5 = version_5(true).encode();
    let signature = 48 + 584;
    for (what, bytes, place, error) in [
        ("version", &v4, 0, TdxError::Version(6)),
        ("key type", &v4, 2, TdxError::KeyType(0)),
        ("TEE type", &v4, 4, TdxError::TeeType(0x83)),
        ("vendor", &v4, 12, TdxError::Vendor),
        ("size of the signature", &v4, signature, TdxError::Length("signature")),
        ("outer type", &v4, signature + 4 + 128, TdxError::CertificationType(4)),
        ("outer size", &v4, signature + 4 + 130, TdxError::Length("QE report with its certification data")),
        ("authentication size", &v4, signature + 4 + 134 + 448, TdxError::Length("QE's authentication data")),
        ("inner type", &v4, signature + 4 + 134 + 482, TdxError::CertificationType(7)),
        ("inner size", &v4, signature + 4 + 134 + 484, TdxError::Length("PCK chain")),
        ("report type", &v5, 48, TdxError::ReportType(1)),
        ("report size", &v5, 50, TdxError::Length("TD report")),
    ] {
        let mut bytes = bytes.clone();
        bytes[place] ^= 2;
        assert_eq!(Quote::parse(&bytes), Err(error), "{what}");
    }
}

#[test]
fn no_byte_of_the_chain_can_be_written_otherwise() {
    let bytes = real().signature.pck_chain.encode();
    let chain = PckChain::parse(&bytes).unwrap();
    for place in 0..bytes.len() {
        let mut other = bytes.clone();
        other[place] ^= 1;
        // Another letter of base64 is another certificate, never another spelling of the same.
        assert_ne!(PckChain::parse(&other).as_ref(), Ok(&chain), "{place}");
    }
    let text = String::from_utf8(bytes).unwrap();
    for other in [
        text.replace('\n', "\r\n"),
        text.replacen('\n', "\n\n", 1),
        text.trim_end_matches('\0').trim_end().to_owned(),
        format!("# text\n{text}"),
        text.replacen("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\ntext\n", 1),
        format!("{text}\0"),
        text.trim_end_matches('\0').repeat(2),
        String::new(),
        "\0".to_owned(),
    ] {
        assert_eq!(PckChain::parse(other.as_bytes()), Err(TdxError::Chain), "{other}");
    }
    assert!(PckChain::parse(text.trim_end_matches('\0').as_bytes()).is_ok());
}

fn array<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    prop::collection::vec(any::<u8>(), N).prop_map(|bytes| bytes.try_into().unwrap())
}

prop_compose! {
    fn td_report()(
        v15 in prop::option::of((array::<16>(), array::<48>())),
        svn in array::<16>(), seam in array::<48>(), signer in array::<48>(), seam_attributes in array::<8>(),
        attributes: u64, xfam: u64, td in array::<48>(), given in array::<144>(), rtmrs in array::<192>(), data in array::<64>(),
    ) -> TdReport {
        let part = |bytes: &[u8], place: usize| bytes.chunks(48).nth(place).unwrap().try_into().unwrap();
        TdReport {
            tee_tcb_svn: svn,
            mr_seam: seam,
            mr_signer_seam: signer,
            seam_attributes,
            td_attributes: TdAttributes(attributes),
            xfam: Xfam(xfam),
            mr_td: td,
            mr_config_id: part(&given, 0),
            mr_owner: part(&given, 1),
            mr_owner_config: part(&given, 2),
            rtmr: [part(&rtmrs, 0), part(&rtmrs, 1), part(&rtmrs, 2), part(&rtmrs, 3)],
            report_data: data,
            v15: v15.map(|(tee_tcb_svn2, mr_service_td)| TdReport15 { tee_tcb_svn2, mr_service_td }),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        report in td_report(), v5: bool, reserved: u32, user in array::<20>(), keys in array::<192>(),
        qe in array::<384>(), authentication in array::<32>(),
        certificates in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..=MAX_CERTIFICATES), terminated: bool,
    ) {
        let version = if v5 || report.v15.is_some() { QuoteVersion::V5 } else { QuoteVersion::V4 };
        let part = |place: usize| keys.chunks(64).nth(place).unwrap().try_into().unwrap();
        let signature = SignatureData {
            signature: part(0),
            attestation_key: part(1),
            qe_report: QeReport::read(&mut Reader::new(&qe)).unwrap(),
            qe_signature: part(2),
            authentication,
            pck_chain: PckChain::new(certificates, terminated).unwrap(),
        };
        let quote = Quote { header: Header { version, reserved, user_data: user }, report, signature };
        let bytes = quote.encode();
        prop_assert_eq!(Quote::parse(&bytes), Ok(quote));
        let padded = [bytes.as_slice(), &[0; 5]].concat();
        prop_assert_eq!(trim(&padded), Ok(bytes.as_slice()));
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        start in 0usize..3, place: prop::sample::Index, edit in prop::collection::vec(any::<u8>(), 0..8), tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = match start {
            0 => DEBUG.to_vec(),
            1 => version_5(true).encode(),
            _ => tail.clone(),
        };
        let at = place.index(bytes.len() + 1);
        for (to, from) in bytes.iter_mut().skip(at).zip(&edit) {
            *to = *from;
        }
        if let Ok(quote) = Quote::parse(&bytes) {
            prop_assert_eq!(quote.encode(), bytes);
        }
        let _ = trim(&tail);
    }
}
