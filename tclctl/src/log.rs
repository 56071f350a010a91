//! `log show | export | verify`: what the guest recorded, and whether the register agrees.

use std::fs;

use protocols::cel;
use protocols::event_log::{self, Record};
use protocols::events::Event;
use protocols::reason::{self, Refusal};
use protocols::register::RegisterValue;
use protocols::tcg_log::TcgLog;
use serde_json::{Value, json};
use verifier::check_log;

use crate::agent::Agent;
use crate::ak::{self, Asked, Told};
use crate::cli::{LogExportArguments, LogFormat, LogShowArguments, LogVerifyArguments};
use crate::outcome::Failure;
use crate::output::Output;

/// One line per record.
pub(crate) async fn show(arguments: &LogShowArguments, output: &Output) -> Result<(), Failure> {
    let bytes = match &arguments.file {
        Some(file) => fs::read(file).map_err(|error| Failure::file(file, error))?,
        None => Agent::connect(&arguments.agent.agent).await?.event_log().await?.log,
    };
    let records = parse(&bytes)?;
    let value = || Value::Array(records.iter().enumerate().map(|(place, record)| as_json(place, record)).collect());
    output.tell(value, || records.iter().enumerate().map(|(place, record)| as_line(place, record)).collect())
}

fn parse(bytes: &[u8]) -> Result<Vec<Record>, Failure> {
    event_log::parse(bytes).map_err(|error| Failure::by_command(error.refusal()))
}

fn as_json(place: usize, record: &Record) -> Value {
    json!({
        "record": place, "mr": record.mr(), "digest": record.digest(), "domain": record.domain(),
        "operation": record.operation(), "content": record.content(),
    })
}

fn as_line(place: usize, record: &Record) -> String {
    // Long digests are cut for reading; --json has them whole.
    let facts = match record.content() {
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name}={}", short(value))).collect::<Vec<_>>().join(" ")
        }
        other => short(other),
    };
    let foreign = if Event::of(record, place).is_ok() { "" } else { " (unknown event)" };
    format!("{place:>5}  {:<9}  {facts}{foreign}", record.operation())
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => match text.split_once(':') {
            Some((algorithm @ ("sha256" | "sha384"), hex)) => format!("{algorithm}:{}…", hex.get(..12).unwrap_or(hex)),
            _ if text.len() > 40 => format!("{}…", text.get(..12).unwrap_or_default()),
            _ => text.clone(),
        },
        Value::Object(members) => {
            let inner: Vec<String> = members.iter().map(|(name, value)| format!("{name}={}", short(value))).collect();
            format!("{{{}}}", inner.join(" "))
        }
        other => other.to_string(),
    }
}

/// Writes the agent's log, or one from a file, to a file.
pub(crate) async fn export(arguments: &LogExportArguments, output: &Output) -> Result<(), Failure> {
    if let Some(from) = &arguments.from {
        let bytes = fs::read(from).map_err(|error| Failure::file(from, error))?;
        let written = form(&bytes, arguments.format)?;
        fs::write(&arguments.file, &written).map_err(|error| Failure::file(&arguments.file, error))?;
        return output.tell(
            || json!({"file": arguments.file, "bytes": written.len()}),
            || vec![format!("{}: {} bytes", arguments.file.display(), written.len())],
        );
    }
    let told = Agent::connect(&arguments.agent.agent).await?.event_log().await?;
    let written = form(&told.log, arguments.format)?;
    fs::write(&arguments.file, &written).map_err(|error| Failure::file(&arguments.file, error))?;
    output.tell(
        || {
            json!({"file": arguments.file, "bytes": written.len(), "register": told.register, "kind": told.kind,
                   "mr": told.mr, "guest": told.guest, "simulated": told.simulated, "environment": told.environment})
        },
        || vec![format!("{}: {} bytes; the register says {}", arguments.file.display(), written.len(), told.register)],
    )
}

/// The log in the form that was asked for. What is no log is written in none.
fn form(bytes: &[u8], format: LogFormat) -> Result<Vec<u8>, Failure> {
    let cel = if bytes.starts_with(&event_log::header()) {
        cel::of_records(&parse(bytes)?)
    } else {
        let log = TcgLog::parse(bytes).map_err(|error| {
            let expected = "a log of the agent's or of firmware";
            Failure::by_command(Refusal::new(reason::LOG_MALFORMED, "event log", expected, error.to_string()))
        })?;
        cel::of_firmware(&log).map_err(|error| Failure::by_command(error.refusal()))?
    };
    match format {
        LogFormat::Tcg => Ok(bytes.to_vec()),
        LogFormat::CelJson => Ok(cel.to_string().into_bytes()),
    }
}

/// Where the register's value comes from, in words.
struct Register {
    value: RegisterValue,
    source: String,
    simulated: bool,
}

/// Strict parse, the rules over the records, and the replay against the register.
pub(crate) async fn verify(arguments: &LogVerifyArguments, output: &Output) -> Result<(), Failure> {
    let (bytes, told) = match &arguments.file {
        Some(file) => (fs::read(file).map_err(|error| Failure::file(file, error))?, None),
        None => {
            let told = Agent::connect(&arguments.agent.agent).await?.event_log().await?;
            (told.log, Some((told.register, told.simulated)))
        }
    };
    let records = parse(&bytes)?;
    let state = check_log(&records).map_err(Failure::by_command)?;
    let register = register(arguments, state.mr(), told).await?;
    state.ends_at(&register.value).map_err(Failure::by_command)?;
    let init = state.init();
    let stamp = if init.simulated || register.simulated { "SIMULATED" } else { "" };
    output.tell(
        || {
            json!({"verified": true, "records": state.count(), "replay": state.head(), "register": register.value,
                   "source": register.source, "mr": state.mr(), "kind": init.register_kind, "sealed": state.sealed(),
                   "simulated": init.simulated || register.simulated, "environment": init.environment})
        },
        || {
            let mut lines = vec![
                format!("records   {}, well formed, in order by the rules", state.count()),
                format!("replay    {}", state.head()),
                format!("register  {} ({})", register.value, register.source),
                format!(
                    "verified: the log leads to the register ({}, {}) {stamp}",
                    init.register_kind, init.environment
                )
                .trim_end()
                .to_owned(),
            ];
            if init.register_kind == protocols::register::RegisterKind::Software {
                lines.push(
                    "a software register binds only what the attestor has received: compare with its receipts"
                        .to_owned(),
                );
            }
            lines
        },
    )
}

async fn register(arguments: &LogVerifyArguments, mr: u32, told: Option<(String, bool)>) -> Result<Register, Failure> {
    let read = |text: &str| {
        // serde knows both text forms; a bare value is not guessed at.
        serde_json::from_value::<RegisterValue>(Value::String(text.to_owned()))
            .map_err(|_| Failure::Usage(format!("{text} is not sha256:<64 hex> or sha384:<96 hex>")))
    };
    if let Some(device) = &arguments.pcr_device {
        let pcr = arguments.pcr.unwrap_or(mr);
        if pcr != mr {
            let refusal =
                Refusal::new(reason::LOG_REPLAY, "the log's register", format!("PCR {pcr}"), format!("register {mr}"));
            return Err(Failure::by_command(refusal));
        }
        let address = ak::address(device)?;
        let simulated = address.simulated();
        let Told::Register(value) = ak::ask(address, Asked::Register(pcr)).await? else {
            return Err(Failure::Fault("the TPM answered something else".to_owned()));
        };
        let stamp = if simulated { ", SIMULATED" } else { "" };
        return Ok(Register { value, source: format!("PCR {pcr} read from {device}{stamp}"), simulated });
    }
    if let Some(text) = &arguments.register {
        return Ok(Register { value: read(text)?, source: "given with --register".to_owned(), simulated: false });
    }
    match told {
        Some((text, simulated)) => {
            Ok(Register { value: read(&text)?, source: "as the agent reads it".to_owned(), simulated })
        }
        None => Err(Failure::Usage("a log from a file needs --register or --pcr-device".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_ours_and_of_firmware_have_a_canonical_form_and_altered_ones_none() {
        let record = Record::encode(4, protocols::register::HashAlg::Sha384, "d", "o", &json!({"a": 1})).unwrap();
        let mut bytes = event_log::header();
        bytes.extend_from_slice(record.bytes());
        let cel: Value = serde_json::from_slice(&form(&bytes, LogFormat::CelJson).unwrap()).unwrap();
        assert_eq!(cel[0]["content"]["event_type"], "EV_EVENT_TAG");
        assert_eq!(form(&bytes, LogFormat::Tcg).unwrap(), bytes);
        *bytes.last_mut().unwrap() ^= 1;
        for format in [LogFormat::Tcg, LogFormat::CelJson] {
            assert!(form(&bytes, format).is_err());
        }
        let ccel = include_bytes!("../../tests/data/vectors/eventlog/CCEL_data_ovmf");
        let cel: Value = serde_json::from_slice(&form(ccel, LogFormat::CelJson).unwrap()).unwrap();
        assert_eq!(cel.as_array().unwrap().len(), 20);
    }

    #[test]
    fn long_values_are_cut_and_short_ones_are_not() {
        assert_eq!(short(&json!("sha256:0123456789abcdef")), "sha256:0123456789ab…");
        assert_eq!(short(&json!("pass")), "pass");
        assert_eq!(short(&json!({"layout": "tree-v1", "n": 1})), "{layout=tree-v1 n=1}");
        assert_eq!(short(&json!("f".repeat(64))), "ffffffffffff…");
    }
}
