use proptest::prelude::*;
use serde_json::json;
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use super::*;

const REAL: &[u8] = include_bytes!("../../../tests/data/vectors/snp/test-report.bin");

fn real() -> Report {
    Report::parse(REAL).unwrap()
}

fn tcb(generation: Generation, bytes: [u8; 5]) -> TcbVersion {
    let [fmc, bootloader, tee, snp, microcode] = bytes;
    TcbVersion { fmc: (generation == Generation::Turin).then_some(fmc), bootloader, tee, snp, microcode }
}

prop_compose! {
    /// Reports of every version and generation.
    fn fields()(
        version in 2u32..=5,
        turin: bool,
        tcbs: [[u8; 5]; 4],
        model in 0u8..=0x0F,
        step: u8,
        words: [u64; 4],
        halves: [u32; 4],
        firmware: [u8; 6],
        bytes in prop::collection::vec(any::<u8>(), 64 + 48 + 32 + 48 + 48 + 32 + 32 + 32 + 64 + 144),
    ) -> Fields {
        let generation = if turin { Generation::Turin } else { Generation::Legacy };
        let mut rest = bytes.as_slice();
        let mut next = |count: usize| { let (head, tail) = rest.split_at(count); rest = tail; head };
        let [current_tcb, reported_tcb, committed_tcb, launch_tcb] = tcbs.map(|bytes| tcb(generation, bytes));
        let mut chip_id: [u8; 64] = next(64).try_into().unwrap();
        chip_id[0] |= 1;
        chip_id[63] |= 1;
        if turin {
            chip_id[8..].fill(0);
        }
        let cpuid = (version > 2).then_some((if turin { 0x1A } else { 0x19 }, model, step));
        Fields {
            version,
            guest_svn: halves[0],
            policy: words[0],
            family_id: next(16).try_into().unwrap(),
            image_id: next(16).try_into().unwrap(),
            vmpl: halves[1],
            sig_algo: halves[2],
            current_tcb,
            plat_info: words[1],
            key_info: halves[3],
            report_data: next(64).try_into().unwrap(),
            measurement: next(48).try_into().unwrap(),
            host_data: next(32).try_into().unwrap(),
            id_key_digest: next(48).try_into().unwrap(),
            author_key_digest: next(48).try_into().unwrap(),
            report_id: next(32).try_into().unwrap(),
            report_id_ma: next(32).try_into().unwrap(),
            reported_tcb,
            cpuid_fam_id: cpuid.map(|c| c.0),
            cpuid_mod_id: cpuid.map(|c| c.1),
            cpuid_step: cpuid.map(|c| c.2),
            chip_id,
            committed_tcb,
            current: FirmwareVersion { major: firmware[0], minor: firmware[1], build: firmware[2] },
            committed: FirmwareVersion { major: firmware[3], minor: firmware[4], build: firmware[5] },
            launch_tcb,
            launch_mit_vector: (version == 5).then_some(words[2]),
            current_mit_vector: (version == 5).then_some(words[3]),
            signature: Signature { r: next(72).try_into().unwrap(), s: next(72).try_into().unwrap() },
        }
    }
}

#[test]
fn the_real_report_reads_as_published() {
    let report = real();
    let fields = report.fields();
    assert_eq!((fields.version, fields.guest_svn, fields.vmpl, fields.sig_algo), (2, 4, 0, 1));
    assert_eq!(fields.policy, 0x3_001F);
    assert_eq!(fields.reported_tcb, TcbVersion { fmc: None, bootloader: 3, tee: 0, snp: 8, microcode: 0x73 });
    assert_eq!(fields.current, FirmwareVersion { major: 1, minor: 52, build: 4 });
    assert_eq!(fields.chip_id[..4], [0xC3, 0x84, 0x27, 0xA3]);
    assert_eq!(fields.report_id_ma, [0xFF; 32]);
    assert_eq!(report.generation(), Generation::Legacy);
    assert_eq!(report.to_bytes().as_slice(), REAL);
    assert_eq!(report.signed_bytes(), &REAL[..0x2A0]);
}

#[test]
fn the_real_report_has_the_json_of_the_sev_crate() {
    let theirs = AttestationReport::from_bytes(REAL).unwrap();
    assert_eq!(real().to_json(), serde_json::to_value(theirs).unwrap());
    assert_eq!(Report::from_json(&serde_json::to_value(theirs).unwrap()).unwrap(), real());
    let back: AttestationReport = serde_json::from_value(real().to_json()).unwrap();
    assert_eq!(back, theirs);
}

#[test]
fn the_signature_converts_to_big_endian_and_back() {
    let signature = real().fields().signature;
    let raw = signature.to_p384().unwrap();
    assert_eq!(raw[47], 0x06, "the lowest byte of R comes last");
    let (r, s) = raw.split_at(48);
    assert_eq!(Signature::from_p384(r.try_into().unwrap(), s.try_into().unwrap()), signature);
    for place in 48..72 {
        let mut long = signature;
        long.s[place] = 1;
        assert_eq!(long.to_p384(), None, "S of more than 48 bytes at {place}");
    }
}

/// Offsets that must be zero, from the specification's table, apart from the TCBs'.
fn reserved(version: u32) -> Vec<usize> {
    let mut offsets: Vec<usize> = [0x04C..0x050, 0x18B..0x1A0, 0x1EB..0x1EC, 0x1EF..0x1F0, 0x208..0x2A0, 0x330..0x4A0]
        .into_iter()
        .flatten()
        .collect();
    if version == 2 {
        offsets.extend(0x188..0x18B);
    }
    if version < 5 {
        offsets.extend(0x1F8..0x208);
    }
    offsets
}

proptest! {
    #[test]
    fn agrees_with_the_sev_crate_both_ways(fields in fields()) {
        let report = Report::new(fields).unwrap();
        let theirs = AttestationReport::from_bytes(report.to_bytes()).unwrap();
        let json = serde_json::to_value(theirs).unwrap();
        prop_assert_eq!(&report.to_json(), &json);
        prop_assert_eq!(&Report::from_json(&json).unwrap(), &report);
        prop_assert_eq!(&Report::parse(report.to_bytes()).unwrap(), &report);
        prop_assert_eq!(&theirs.to_bytes().unwrap(), report.to_bytes());
    }

    #[test]
    fn no_reserved_byte_may_be_set(fields in fields(), value in 1u8..) {
        let report = Report::new(fields).unwrap();
        let mut offsets = reserved(report.fields().version);
        let tcb: &[usize] = if report.generation() == Generation::Turin { &[4, 5, 6] } else { &[2, 3, 4, 5] };
        for start in [0x038, 0x180, 0x1E0, 0x1F0] {
            offsets.extend(tcb.iter().map(|place| start + place));
        }
        for offset in offsets {
            let mut bytes = *report.to_bytes();
            bytes[offset] = value;
            prop_assert_eq!(Report::parse(&bytes), Err(SnpError::Reserved { offset }));
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_or_kept_exactly(fields in fields(), bit in 0..REPORT_SIZE * 8) {
        let mut bytes = *Report::new(fields).unwrap().to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(report) = Report::parse(&bytes) {
            prop_assert_eq!(report.to_bytes(), &bytes);
            prop_assert_eq!(&Report::from_json(&report.to_json()).unwrap(), &report);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        let _ = Report::parse(&bytes);
    }
}

#[test]
fn other_sizes_are_refused() {
    assert_eq!(Report::parse(&REAL[..1183]), Err(SnpError::Size { actual: 1183 }));
    assert_eq!(Report::parse(&[REAL, &[0]].concat()), Err(SnpError::Size { actual: 1185 }));
    assert_eq!(Report::parse(&[]), Err(SnpError::Size { actual: 0 }));
}

#[test]
fn unknown_versions_and_generations_are_refused() {
    for version in [0u32, 1, 6, u32::MAX] {
        let mut bytes = *real().to_bytes();
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        assert_eq!(Report::parse(&bytes), Err(SnpError::Version(version)));
    }
    let mut masked = *real().to_bytes();
    masked[0x1A0..0x1E0].fill(0);
    assert_eq!(Report::parse(&masked), Err(SnpError::Generation));
    let mut unknown = *real().to_bytes();
    unknown[0] = 3;
    unknown[0x188] = 0x17;
    assert_eq!(Report::parse(&unknown), Err(SnpError::Generation));
}

#[test]
fn json_that_is_not_canonical_is_refused() {
    let good = real().to_json();
    let with = |edit: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut value = good.clone();
        edit(value.as_object_mut().unwrap());
        Report::from_json(&value)
    };
    assert!(with(&|_| ()).is_ok());
    assert_eq!(with(&|m| drop(m.remove("cpuid_fam_id"))), Err(SnpError::Json), "absent is not null");
    assert_eq!(with(&|m| drop(m.insert("extra".into(), json!(0)))), Err(SnpError::Json));
    assert_eq!(with(&|m| drop(m.insert("vmpl".into(), json!(0.0)))), Err(SnpError::Json));
    assert_eq!(with(&|m| drop(m.insert("host_data".into(), json!(vec![0; 31])))), Err(SnpError::Json));
    assert_eq!(with(&|m| drop(m.insert("report_data".into(), json!(vec![0; 65])))), Err(SnpError::Json));
    assert_eq!(with(&|m| m["chip_id"][0] = json!(256)), Err(SnpError::Json));
    assert_eq!(with(&|m| m["current_tcb"]["fmc"] = json!(0)), Err(SnpError::Field("fmc")));
    assert_eq!(with(&|m| m["cpuid_step"] = json!(1)), Err(SnpError::Field("cpuid")));
    assert_eq!(with(&|m| m["launch_mit_vector"] = json!(1)), Err(SnpError::Field("mit_vector")));
    assert_eq!(with(&|m| m["version"] = json!(6)), Err(SnpError::Version(6)));
    assert_eq!(
        with(&|m| drop(m["signature"].as_object_mut().unwrap().insert("z".into(), json!(1)))),
        Err(SnpError::Json)
    );
    assert_eq!(Report::from_json(&Value::Null), Err(SnpError::Json));
    assert_eq!(Report::from_json(&json!([])), Err(SnpError::Json));
}

#[test]
fn a_tcb_is_compared_member_by_member() {
    let minimum = TcbVersion { fmc: None, bootloader: 3, tee: 0, snp: 8, microcode: 0x73 };
    assert!(minimum.is_at_least(&minimum));
    assert!(!TcbVersion { bootloader: 2, snp: 255, microcode: 255, ..minimum }.is_at_least(&minimum));
    assert!(!TcbVersion { snp: 7, ..minimum }.is_at_least(&minimum));
    assert!(!TcbVersion { microcode: 0x72, ..minimum }.is_at_least(&minimum));
    assert!(!minimum.is_at_least(&TcbVersion { tee: 1, ..minimum }));
    assert!(!minimum.is_at_least(&TcbVersion { fmc: Some(0), ..minimum }), "a named FMC version needs one");
}
