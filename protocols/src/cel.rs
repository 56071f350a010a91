//! The TCG Canonical Event Log's JSON encoding, for export: one array of records, each
//! `{"recnum", "pcr", "digests": [{"hashAlg", "digest"}], "content_type": "pcclient_std", "content": {"event_type",
//! "event_data"}}`; digests and event data in lower-case hex, event types by name where there is one.
//!
//! Nothing is exported that could be shown wrong: where an event's digest is that of its data, it is compared, and a log
//! with another one is refused as a whole. What firmware measured elsewhere (images, whole tables) is not in the log; such
//! digests are given on as they are.

use serde_json::{Value, json};

use crate::event_log::{EV_EVENT_TAG, LogError, Record, TAG_ID};
use crate::register::{HashAlg, RegisterValue};
use crate::tcg_log::{EV_NO_ACTION, Event, TcgLog};

const EV_SEPARATOR: u32 = 4;
const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
const EV_EFI_GPT_EVENT: u32 = 0x8000_0006;
const EV_EFI_ACTION: u32 = 0x8000_0007;
const EV_EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00E0;

/// Types whose digest is always that of the event's data.
const OF_DATA: [u32; 5] =
    [EV_SEPARATOR, EV_EFI_VARIABLE_DRIVER_CONFIG, EV_EFI_GPT_EVENT, EV_EFI_ACTION, EV_EFI_VARIABLE_AUTHORITY];

const NAMES: [(u32, &str); 19] = [
    (0x0000_0001, "EV_POST_CODE"),
    (EV_NO_ACTION, "EV_NO_ACTION"),
    (EV_SEPARATOR, "EV_SEPARATOR"),
    (0x0000_0005, "EV_ACTION"),
    (EV_EVENT_TAG, "EV_EVENT_TAG"),
    (0x0000_0007, "EV_S_CRTM_CONTENTS"),
    (0x0000_0008, "EV_S_CRTM_VERSION"),
    (0x0000_0009, "EV_CPU_MICROCODE"),
    (0x0000_000A, "EV_PLATFORM_CONFIG_FLAGS"),
    (0x0000_000D, "EV_IPL"),
    (EV_EFI_VARIABLE_DRIVER_CONFIG, "EV_EFI_VARIABLE_DRIVER_CONFIG"),
    (0x8000_0002, "EV_EFI_VARIABLE_BOOT"),
    (0x8000_0003, "EV_EFI_BOOT_SERVICES_APPLICATION"),
    (0x8000_0004, "EV_EFI_BOOT_SERVICES_DRIVER"),
    (EV_EFI_GPT_EVENT, "EV_EFI_GPT_EVENT"),
    (EV_EFI_ACTION, "EV_EFI_ACTION"),
    (0x8000_000A, "EV_EFI_PLATFORM_FIRMWARE_BLOB2"),
    (0x8000_000B, "EV_EFI_HANDOFF_TABLES2"),
    (EV_EFI_VARIABLE_AUTHORITY, "EV_EFI_VARIABLE_AUTHORITY"),
];

/// The text of an AAEL event, whoever wrote it: `domain SP operation SP content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aael<'d> {
    /// First word.
    pub domain: &'d str,
    /// Second word.
    pub operation: &'d str,
    /// The rest; JSON in our own records, anything printable in others'.
    pub content: &'d str,
}

impl<'d> Aael<'d> {
    /// Reads the data of an EV_EVENT_TAG event; `None`: it has another tag.
    ///
    /// # Errors
    /// What is wrong with data that has the tag.
    pub fn parse(data: &'d [u8]) -> Result<Option<Self>, &'static str> {
        let Some((tag, rest)) = data.split_first_chunk::<4>() else { return Ok(None) };
        if u32::from_le_bytes(*tag) != TAG_ID {
            return Ok(None);
        }
        let (length, text) = rest.split_first_chunk::<4>().ok_or("cut short")?;
        if usize::try_from(u32::from_le_bytes(*length)) != Ok(text.len()) {
            return Err("the text is not as long as it says");
        }
        let text = std::str::from_utf8(text).map_err(|_| "the text leaves printable ASCII")?;
        if !text.bytes().all(|byte| (0x20..=0x7E).contains(&byte)) {
            return Err("the text leaves printable ASCII");
        }
        match text.splitn(3, ' ').collect::<Vec<_>>().as_slice() {
            [domain, operation, content] if !domain.is_empty() && !operation.is_empty() => {
                Ok(Some(Self { domain, operation, content }))
            }
            _ => Err("the text is not `domain operation content`"),
        }
    }
}

/// Our own records, which [`crate::event_log::parse`] has checked, as CEL-JSON.
#[must_use]
pub fn of_records(records: &[Record]) -> Value {
    let one = |(place, record): (usize, &Record)| {
        // Behind register, type, count, algorithm and digest stands the length, then the data.
        let data = record.bytes().get(18 + record.digest().alg().size()..).unwrap_or_default();
        let digest = record.digest();
        entry(place, record.mr(), &[(digest.alg().tcg_id(), digest.as_bytes())], EV_EVENT_TAG, data)
    };
    Value::Array(records.iter().enumerate().map(one).collect())
}

/// A firmware's log as CEL-JSON. Register numbers are as in the log: 1 to 4 are RTMR0 to RTMR3 in a TDX guest's.
///
/// # Errors
/// [`LogError::Digest`] where a digest that must be of the event's data is not; [`LogError::Malformed`] for an AAEL event
/// that is none.
pub fn of_firmware(log: &TcgLog) -> Result<Value, LogError> {
    let mut records = Vec::new();
    for (place, event) in log.events().iter().enumerate() {
        check(place, event)?;
        let digests: Vec<_> = event.digests.iter().map(|digest| (digest.alg, digest.bytes.as_slice())).collect();
        records.push(entry(place, event.register, &digests, event.kind, &event.data));
    }
    Ok(Value::Array(records))
}

fn check(place: usize, event: &Event) -> Result<(), LogError> {
    let aael = event.kind == EV_EVENT_TAG
        && Aael::parse(&event.data).map_err(|what| LogError::Malformed { record: place, what })?.is_some();
    if !aael && !OF_DATA.contains(&event.kind) {
        return Ok(());
    }
    for digest in &event.digests {
        let Some(alg) = HashAlg::from_tcg_id(digest.alg) else { continue };
        if RegisterValue::from_bytes(alg, &digest.bytes) != Some(alg.hash(&[&event.data])) {
            return Err(LogError::Digest { record: place });
        }
    }
    Ok(())
}

fn entry(place: usize, register: u32, digests: &[(u16, &[u8])], kind: u32, data: &[u8]) -> Value {
    let digests: Vec<Value> = digests
        .iter()
        .map(|(alg, digest)| json!({ "hashAlg": algorithm(*alg), "digest": hex::encode(digest) }))
        .collect();
    let name = NAMES.iter().find(|(id, _)| *id == kind);
    let name = name.map_or_else(|| format!("{kind:#010x}"), |(_, name)| (*name).to_owned());
    json!({
        "recnum": place, "pcr": register, "digests": digests, "content_type": "pcclient_std",
        "content": { "event_type": name, "event_data": hex::encode(data) },
    })
}

fn algorithm(id: u16) -> String {
    match id {
        0x0004 => "sha1".to_owned(),
        0x000B => "sha256".to_owned(),
        0x000C => "sha384".to_owned(),
        0x000D => "sha512".to_owned(),
        other => format!("{other:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::{END_MARK, MR_RTMR3};
    use crate::reason;

    const ALIBABA: &[u8] = include_bytes!("../../tests/data/vectors/eventlog/CCEL_AAEL_alibabacloud");
    const OVMF: &[u8] = include_bytes!("../../tests/data/vectors/eventlog/CCEL_data_ovmf");

    /// The other parser's events, digest by digest.
    fn agrees(bytes: &[u8], parsed: &str) -> Value {
        let cel = of_firmware(&TcgLog::parse(bytes).unwrap()).unwrap();
        let parsed: Value = serde_json::from_str(parsed).unwrap();
        let (ours, theirs) = (cel.as_array().unwrap(), parsed["uefi_event_logs"].as_array().unwrap());
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!((&ours["pcr"], &ours["content"]["event_type"]), (&theirs["index"], &theirs["type_name"]));
            assert_eq!(ours["digests"][0]["digest"], theirs["digests"][0]["digest"]);
        }
        cel
    }

    #[test]
    fn real_firmware_logs_are_exported_as_another_parser_reads_them() {
        agrees(OVMF, include_str!("../../tests/data/vectors/eventlog/CCEL_data_ovmf_out.json"));
        let cel = agrees(ALIBABA, include_str!("../../tests/data/vectors/eventlog/CCEL_AAEL_alibabacloud_out.json"));
        assert_eq!(cel[0]["digests"][0]["hashAlg"], "sha384");
        let log = TcgLog::parse(ALIBABA).unwrap();
        let aael: Vec<_> = log.events().iter().filter_map(|event| Aael::parse(&event.data).unwrap()).collect();
        let [plain, json] = aael.as_slice() else { panic!("two AAEL events, not {}", aael.len()) };
        assert_eq!((plain.domain, plain.operation, plain.content), ("coco.com", "some-operation", "some-content"));
        assert!(json.content.starts_with("{\"key\": \"value\""));
    }

    #[test]
    fn a_flipped_byte_of_what_is_hashed_refuses_the_log() {
        let needle = b"coco.com some-operation some-content";
        let at = ALIBABA.windows(needle.len()).position(|window| window == needle).unwrap();
        let mut altered = ALIBABA.to_vec();
        altered[at + needle.len() - 1] ^= 1;
        assert_eq!(of_firmware(&TcgLog::parse(&altered).unwrap()).unwrap_err().code(), reason::LOG_DIGEST);
        let mut altered = ALIBABA.to_vec();
        altered[at] = b' ';
        assert_eq!(of_firmware(&TcgLog::parse(&altered).unwrap()).unwrap_err().code(), reason::LOG_MALFORMED);
        let at = OVMF.windows(20).position(|window| window.starts_with(b"S\0e\0c\0u\0r\0e\0B\0o\0o\0t\0")).unwrap();
        let mut altered = OVMF.to_vec();
        altered[at] ^= 1;
        assert_eq!(of_firmware(&TcgLog::parse(&altered).unwrap()).unwrap_err().code(), reason::LOG_DIGEST);
    }

    #[test]
    fn our_records_are_exported_with_the_bytes_their_digest_is_of() {
        let record = Record::encode(MR_RTMR3, HashAlg::Sha384, "d", "o", &json!({"a": 1})).unwrap();
        let cel = of_records(std::slice::from_ref(&record));
        assert_eq!((&cel[0]["recnum"], &cel[0]["pcr"]), (&json!(0), &json!(4)));
        let data = hex::decode(cel[0]["content"]["event_data"].as_str().unwrap()).unwrap();
        assert_eq!(HashAlg::Sha384.hash(&[&data]), record.digest());
        assert_eq!(cel[0]["digests"][0]["digest"], hex::encode(record.digest().as_bytes()));
        let aael = Aael::parse(&data).unwrap().unwrap();
        assert_eq!((aael.domain, aael.operation, aael.content), ("d", "o", "{\"a\":1}"));
        assert_eq!(Aael::parse(&END_MARK), Ok(None));
    }
}
