//! Developer commands: `cargo xtask quickstart | test | check | docs`.

mod check;
mod prerequisites;
mod quickstart;
mod shell;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  quickstart   one whole launch on this machine: registry, TPM (simulated), attestor, two accepted
               launches and three refusals; installs what is missing from Debian
  test         every test of the workspace; installs what is missing from Debian
  check        format, clippy, documentation, licences and bans, crate edges
  docs         write docs/reason-codes.md anew from the table of reason codes
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let done = match command.as_deref() {
        Some("quickstart") => quickstart::run(),
        Some("test") => check::test(),
        Some("check") => check::check(),
        Some("docs") => check::docs(),
        Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
