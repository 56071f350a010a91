//! Developer commands: `cargo xtask quickstart | test | check | docs | bench | soak`.

mod bench;
mod broker;
mod check;
mod guest_image;
mod package;
mod prerequisites;
mod quickstart;
mod shell;
mod soak;
mod vm;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  quickstart   one whole launch on this machine: registry, TPM (simulated), attestor, two accepted
               launches and three refusals; installs what is missing from Debian
  test         every test of the workspace; installs what is missing from Debian
  check        format, clippy, documentation, licences and bans, crate edges
  docs         write docs/reason-codes.md anew from the table of reason codes
  soak         what takes too long for every run of the tests (`cargo xtask soak help`)
  package      everything that is installed, into --out DIR: Debian packages, the attestor's image, the chart, guest overlays
               (docs/deploy.md); `deb`, `attestor-image` and `node-image` make one
  guest-image  a guest's image with what will be measured of it (`cargo xtask guest-image help`)
  vm           such an image in an emulated machine (`cargo xtask vm help`)
  bench        what a pull costs beside other programs, and what the agent costs (`cargo xtask bench help`)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("bench") => bench::bench(arguments.get(1..).unwrap_or_default()),
        Some("soak") => soak::soak(arguments.get(1..).unwrap_or_default()),
        Some("package") => package::package(arguments.get(1..).unwrap_or_default()),
        Some("deb") => package::debs(arguments.get(1..).unwrap_or_default()),
        Some("node-image") => package::node_image(arguments.get(1..).unwrap_or_default()),
        Some("attestor-image") => package::attestor_image(arguments.get(1..).unwrap_or_default()),
        Some("guest-image") => guest_image::guest_image(arguments.get(1..).unwrap_or_default()),
        Some("vm") => vm::vm(arguments.get(1..).unwrap_or_default()),
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
