use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::digest::Sha256Digest;
use crate::encoding;

const OVMF: &[u8] = include_bytes!("../../../tests/data/vectors/eventlog/CCEL_data_ovmf");
const AAEL: &[u8] = include_bytes!("../../../tests/data/vectors/eventlog/CCEL_AAEL_alibabacloud");

const SHA256: u16 = 0x000B;
const SHA384: u16 = 0x000C;

/// Register, type, digests by algorithm, and data of an event.
type Told = (u64, String, Vec<(String, String)>, Vec<u8>);

/// What another implementation reads in the same bytes.
fn elsewhere(json: &str) -> Vec<Told> {
    let value: Value = serde_json::from_str(json).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let events = value["uefi_event_logs"].as_array().unwrap().iter().map(|event| {
        let digests = event["digests"].as_array().unwrap();
        let digests = digests.iter().map(|digest| (text(&digest["alg"]), text(&digest["digest"]))).collect();
        let data = encoding::un_b64(event["event"].as_str().unwrap()).unwrap();
        (event["index"].as_u64().unwrap(), text(&event["type_name"]), digests, data)
    });
    events.collect()
}

/// TCG PC Client Platform Firmware Profile, section 10.4.1.
fn kind_name(kind: u32) -> &'static str {
    match kind {
        0x0000_0001 => "EV_POST_CODE",
        0x0000_0004 => "EV_SEPARATOR",
        0x0000_0005 => "EV_ACTION",
        0x0000_0006 => "EV_EVENT_TAG",
        0x0000_000A => "EV_PLATFORM_CONFIG_FLAGS",
        0x0000_000D => "EV_IPL",
        0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
        0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x8000_0006 => "EV_EFI_GPT_EVENT",
        0x8000_0007 => "EV_EFI_ACTION",
        0x8000_000A => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000_000B => "EV_EFI_HANDOFF_TABLES2",
        0x8000_00E0 => "EV_EFI_VARIABLE_AUTHORITY",
        _ => "another",
    }
}

#[test]
fn real_logs_are_read_as_elsewhere() {
    for (bytes, json) in [
        (OVMF, include_str!("../../../tests/data/vectors/eventlog/CCEL_data_ovmf_out.json")),
        (AAEL, include_str!("../../../tests/data/vectors/eventlog/CCEL_AAEL_alibabacloud_out.json")),
    ] {
        let log = TcgLog::parse(bytes).unwrap();
        assert!(bytes.starts_with(&log.encode()));
        let expected = elsewhere(json);
        assert_eq!(log.events().len(), expected.len());
        for (place, (event, (register, kind, digests, data))) in log.events().iter().zip(expected).enumerate() {
            assert_eq!(u64::from(event.register), register, "{place}");
            assert_eq!(kind_name(event.kind), kind, "{place}: {:#x}", event.kind);
            assert_eq!(event.data, data, "{place}");
            let found: Vec<_> = event
                .digests
                .iter()
                .map(|digest| {
                    let alg = if digest.alg == SHA384 { "SHA-384" } else { "another" };
                    (alg.to_owned(), hex::encode(&digest.bytes))
                })
                .collect();
            assert_eq!(found, digests, "{place}");
        }
        // Registers that nothing extended, and MRTD, which no event extends, are zero.
        assert_eq!(log.replay(0, HashAlg::Sha384), Ok(HashAlg::Sha384.zero()));
        assert_ne!(log.replay(1, HashAlg::Sha384), Ok(HashAlg::Sha384.zero()));
        assert_eq!(log.replay(1, HashAlg::Sha256), Err(TcgLogError("the bank is not logged")));
    }
}

fn spec(algorithms: &[(u16, u16)]) -> Vec<u8> {
    let mut data = [SIGNATURE.as_slice(), &[0, 0, 0, 0, 0, 2, 0, 2]].concat();
    data.extend_from_slice(&u32::try_from(algorithms.len()).unwrap().to_le_bytes());
    for (alg, size) in algorithms {
        data.extend_from_slice(&alg.to_le_bytes());
        data.extend_from_slice(&size.to_le_bytes());
    }
    data.push(0);
    let size = u32::try_from(data.len()).unwrap().to_le_bytes();
    [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &size, &data].concat()
}

fn event(register: u32, kind: u32, digests: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = [register.to_le_bytes(), kind.to_le_bytes()].concat();
    out.extend_from_slice(&u32::try_from(digests.len()).unwrap().to_le_bytes());
    for (alg, digest) in digests {
        out.extend_from_slice(&alg.to_le_bytes());
        out.extend_from_slice(digest);
    }
    out.extend_from_slice(&[3, 0, 0, 0, b'a', b'b', b'c']);
    out
}

fn chain(digests: &[[u8; 32]]) -> RegisterValue {
    let zero = Sha256Digest::new([0; 32]);
    RegisterValue::Sha256(
        digests.iter().fold(zero, |value, digest| Sha256Digest::of_parts(&[value.as_bytes(), digest])),
    )
}

#[test]
fn a_register_is_replayed_from_its_own_extended_events() {
    let log = [
        spec(&[(SHA256, 32), (SHA384, 48)]),
        event(14, 13, &[(SHA256, &[1; 32]), (SHA384, &[9; 48])]),
        event(7, 13, &[(SHA256, &[2; 32]), (SHA384, &[9; 48])]),
        event(14, EV_NO_ACTION, &[(SHA256, &[3; 32]), (SHA384, &[9; 48])]),
        event(14, 4, &[(SHA384, &[9; 48]), (SHA256, &[4; 32])]),
    ]
    .concat();
    let replay = |log: &[u8], register| TcgLog::parse(log).unwrap().replay(register, HashAlg::Sha256);
    assert_eq!(replay(&log, 14), Ok(chain(&[[1; 32], [4; 32]])));
    assert_eq!(replay(&log, 7), Ok(chain(&[[2; 32]])));
    assert_eq!(replay(&log, 15), Ok(chain(&[])));
    for padding in [vec![0; 9], vec![0xFF; 64]] {
        assert_eq!(replay(&[log.clone(), padding].concat(), 14), Ok(chain(&[[1; 32], [4; 32]])));
    }
    // Both kinds of padding, or anything else, are an event that is cut short.
    assert!(TcgLog::parse(&[log.clone(), vec![0, 0xFF]].concat()).is_err());
    assert!(TcgLog::parse(&[log, vec![0xFF; 8], vec![7]].concat()).is_err());
}

#[test]
fn a_cut_log_is_refused_between_events_only() {
    let head = spec(&[(SHA256, 32)]);
    let log = [head.clone(), event(14, 13, &[(SHA256, &[1; 32])])].concat();
    for end in 0..log.len() {
        let whole = end == head.len();
        assert_eq!(TcgLog::parse(log.get(..end).unwrap()).is_ok(), whole, "{end}");
    }
}

#[test]
fn what_cannot_be_read_or_replayed_is_refused() {
    let refused = |parts: &[Vec<u8>]| TcgLog::parse(&parts.concat()).unwrap_err().0;
    let one = [1u8; 32];
    assert_eq!(refused(&[spec(&[(SHA256, 32)]), event(14, 13, &[(0x0004, &[1; 20])])]), "unknown algorithm");
    assert_eq!(
        refused(&[spec(&[(SHA256, 32)]), event(14, 13, &[(SHA256, &one), (SHA256, &one)])]),
        "two digests of one algorithm"
    );
    assert_eq!(refused(&[spec(&[(SHA256, 20)])]), "an algorithm of another length than it has");
    assert_eq!(refused(&[spec(&[(SHA256, 32); 17])]), "too many algorithms");
    assert_eq!(refused(&[spec(&[(SHA256, 32)]), vec![1; 12]]), "too many digests");
    assert_eq!(refused(&[vec![0; MAX_LOG + 1]]), "longer than a megabyte");
    let mut old = spec(&[(SHA256, 32)]);
    old[32] ^= 1;
    assert_eq!(refused(&[old]), "not a crypto agile log");
    let mut other = spec(&[(SHA256, 32)]);
    other[4] = 4;
    assert_eq!(refused(&[other]), "no Spec-ID event");

    let replay = |parts: &[Vec<u8>]| TcgLog::parse(&parts.concat()).unwrap().replay(14, HashAlg::Sha256);
    let sha384 = [spec(&[(SHA384, 48)]), event(14, 13, &[(SHA384, &[1; 48])])];
    assert_eq!(replay(&sha384), Err(TcgLogError("the bank is not logged")));
    let missing = [spec(&[(SHA256, 32), (SHA384, 48)]), event(14, 13, &[(SHA384, &[1; 48])])];
    assert_eq!(replay(&missing), Err(TcgLogError("an event without a digest of the bank")));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(tail in prop::collection::vec(any::<u8>(), 0..200), start in 0u8..3, cut in 0usize..2200) {
        let log = match start {
            0 => tail,
            1 => [spec(&[(SHA256, 32)]), tail].concat(),
            _ => [&OVMF[..cut], &tail].concat(),
        };
        if let Ok(read) = TcgLog::parse(&log) {
            let written = read.encode();
            prop_assert!(log.starts_with(&written) && is_padding(&log[written.len()..]));
            let _ = read.replay(14, HashAlg::Sha256);
        }
    }
}
