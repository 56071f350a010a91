//! `log show | export | verify`: what the guest recorded, and whether the register agrees.

use std::fs;

use protocols::event_log::{self, Record};
use protocols::events::Event;
use protocols::reason::{self, Refusal};
use protocols::register::RegisterValue;
use serde_json::{Value, json};
use verifier::check_log;

use crate::agent::Agent;
use crate::ak::{self, Asked, Told};
use crate::cli::{LogExportArguments, LogShowArguments, LogVerifyArguments};
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

/// Writes the agent's log to a file.
pub(crate) async fn export(arguments: &LogExportArguments, output: &Output) -> Result<(), Failure> {
    let told = Agent::connect(&arguments.agent.agent).await?.event_log().await?;
    fs::write(&arguments.file, &told.log).map_err(|error| Failure::file(&arguments.file, error))?;
    output.tell(
        || {
            json!({"file": arguments.file, "bytes": told.log.len(), "register": told.register, "kind": told.kind,
                   "mr": told.mr, "guest": told.guest, "simulated": told.simulated, "environment": told.environment})
        },
        || vec![format!("{}: {} bytes; the register says {}", arguments.file.display(), told.log.len(), told.register)],
    )
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
    fn long_values_are_cut_and_short_ones_are_not() {
        assert_eq!(short(&json!("sha256:0123456789abcdef")), "sha256:0123456789ab…");
        assert_eq!(short(&json!("pass")), "pass");
        assert_eq!(short(&json!({"layout": "tree-v1", "n": 1})), "{layout=tree-v1 n=1}");
        assert_eq!(short(&json!("f".repeat(64))), "ffffffffffff…");
    }
}
