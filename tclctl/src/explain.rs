//! `explain`: what a reason code means, how the attestor decided one launch, or why it refused one request.

use std::fmt::Write as _;

use protocols::reason::{self, Class, Code, Entry};
use protocols::tcl::{REFUSALS_PATH, VERDICTS_PATH};
use serde_json::{Value, json};

use crate::attestor::Administration;
use crate::cli::{ExplainArguments, ReasonCodesArguments};
use crate::outcome::Failure;
use crate::output::Output;

/// A code from the table, or a decision or refusal from the attestor.
pub(crate) async fn explain(arguments: &ExplainArguments, output: &Output) -> Result<(), Failure> {
    if let Some(code) = Code::parse(&arguments.what) {
        return output.tell(
            || json!({"code": code, "check": code.check(), "remedy": code.remedy(), "status": code.class().exit_status()}),
            || {
                vec![
                    format!("{code} ({})", class(code.class())),
                    format!("  checked: {}", code.check()),
                    format!("  remedy:  {}", code.remedy()),
                ]
            },
        );
    }
    if arguments.what.contains('.') || !arguments.what.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let near: Vec<&str> =
            reason::ALL.iter().map(|e| e.code).filter(|code| related(code, &arguments.what)).collect();
        let hint = if near.is_empty() {
            "see docs/reason-codes.md".to_owned()
        } else {
            format!("did you mean {}?", near.join(", "))
        };
        return Err(Failure::Usage(format!("{} is neither a reason code nor an id; {hint}", arguments.what)));
    }
    let record = recorded(arguments).await?;
    let pretty = serde_json::to_string_pretty(&record).unwrap_or_default();
    output.tell(|| record, || pretty.lines().map(str::to_owned).collect())
}

fn related(code: &str, text: &str) -> bool {
    let (area, what) = text.split_once('.').unwrap_or((text, text));
    code.split_once('.').is_some_and(|(a, w)| a == area || w == what)
}

async fn recorded(arguments: &ExplainArguments) -> Result<Value, Failure> {
    let (Some(attestor), Some(token)) = (&arguments.attestor, &arguments.admin_token) else {
        return Err(Failure::Usage("an id needs --attestor URL and --admin-token FILE".to_owned()));
    };
    let administration = Administration::new(attestor, token)?;
    let what = format!("a decision or refusal {}", arguments.what);
    let decision = administration.get(&format!("{VERDICTS_PATH}/{}", arguments.what), &what).await;
    let body = match decision {
        Err(Failure::Coded { refusal, .. }) if refusal.code == reason::ATTESTOR_NOT_FOUND => {
            administration.get(&format!("{REFUSALS_PATH}/{}", arguments.what), &what).await?
        }
        decision => decision?,
    };
    serde_json::from_slice(&body).map_err(|error| Failure::Unavailable(format!("{attestor}: not JSON: {error}")))
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Refused => "refused, exit status 77",
        Class::Unavailable => "a service is unavailable, exit status 69",
        Class::Io => "input or output failed, exit status 74",
        Class::Fault => "a fault of ours or of the runtime, exit status 70",
    }
}

/// The whole table.
pub(crate) fn table(arguments: &ReasonCodesArguments, output: &Output) -> Result<(), Failure> {
    if arguments.markdown {
        return output.raw(markdown(reason::ALL).as_bytes());
    }
    let row =
        |e: &Entry| json!({"code": e.code, "check": e.check, "remedy": e.remedy, "status": e.class.exit_status()});
    let value = || Value::Array(reason::ALL.iter().map(row).collect());
    output.tell(value, || reason::ALL.iter().map(|entry| format!("{}  {}", entry.code, entry.check)).collect())
}

fn markdown(entries: &[Entry]) -> String {
    let mut page = String::from(
        "# Reason codes\n\nGenerated from the table in `protocols/src/reason.rs` by `cargo xtask docs`; a test compares the two.\n\n\
         A code once released keeps its meaning. `tclctl` prints one line on standard error, `NOT verified: <code> …` for a\n\
         check that failed, `failed: <code> …` otherwise, and ends with the exit status in the table. `tclctl explain CODE`\n\
         prints one row.\n",
    );
    let mut area = "";
    for entry in entries {
        let here = entry.code.split('.').next().unwrap_or_default();
        if here != area {
            area = here;
            let _ = write!(page, "\n## {area}\n\n| code | status | checked | remedy |\n|---|---|---|---|\n");
        }
        let status = entry.class.exit_status();
        let _ = writeln!(page, "| `{}` | {status} | {} | {} |", entry.code, entry.check, entry.remedy);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_reason_codes_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reason-codes.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page == markdown(reason::ALL), "docs/reason-codes.md is old: run `cargo xtask docs`");
    }

    #[test]
    fn a_code_that_does_not_exist_leads_to_one_that_does() {
        assert!(related("golden.rollback", "golden.rolback") && related("golden.rollback", "rollback"));
        assert!(!related("golden.rollback", "image.size"));
    }
}
