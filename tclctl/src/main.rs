//! `tclctl`, the people's command: measure, sign, run, read logs, explain.
//!
//! Exit status: the workload's own; 77 refused, 64 usage, 69 a service is unavailable, 70 a fault of ours
//! or of the runtime, 74 reading or writing failed.

mod agent;
mod ak;
mod appraise;
mod artifact;
mod attestor;
mod audit;
mod cli;
mod encryption;
mod enrolment;
mod evidence;
mod explain;
mod files;
mod golden;
mod image_push;
mod images;
mod inspect;
mod issue;
mod kbs;
mod layer;
mod log;
mod mount;
mod outcome;
mod output;
mod pause;
mod policy;
mod progress;
mod pull;
mod reference;
mod run;
mod store;
mod streams;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{
    AkCommand, AuditCommand, Cli, Command, EvidenceCommand, GoldenCommand, ImageCommand, LogCommand, PolicyCommand,
    ReferenceCommand, SimulatedCommand,
};
use outcome::{Ending, Failure};
use output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are what was asked for; everything else is a usage error.
            return ExitCode::from(if error.use_stderr() { outcome::USAGE } else { 0 });
        }
    };
    let output = Output::new(cli.json);
    // Nothing but waiting is asynchronous: what works has a blocking thread of its own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.failed(&Failure::Fault(format!("cannot start: {error}"))),
    };
    let ending = runtime.block_on(dispatch(cli.command, &output));
    // A read of standard input may still be blocked in a thread; it must not hold up the end.
    runtime.shutdown_background();
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Workload(status)) => ExitCode::from(status),
        Err(failure) => output.failed(&failure),
    }
}

async fn dispatch(command: Command, output: &Output) -> Result<Ending, Failure> {
    match command {
        Command::Run(arguments) => return run::run(*arguments, output).await,
        Command::List(agent) => inspect::list(&agent, output).await?,
        Command::Stop(arguments) => inspect::stop(&arguments).await?,
        Command::Status(agent) => inspect::status(&agent, output).await?,
        Command::Evidence(arguments) => match &arguments.command {
            None => inspect::evidence(&arguments, output).await?,
            Some(EvidenceCommand::Detect(arguments)) => evidence::detect(arguments, output).await?,
            Some(EvidenceCommand::Collect(arguments)) => evidence::collect(arguments, output).await?,
            Some(EvidenceCommand::Verify(arguments)) => evidence::verify(arguments, output)?,
            Some(EvidenceCommand::CollectEndorsements(arguments)) => {
                evidence::collect_endorsements(arguments, output).await?;
            }
            Some(EvidenceCommand::Show(arguments)) => evidence::show(arguments, output)?,
            Some(EvidenceCommand::Simulate(arguments)) => evidence::simulate(arguments, output)?,
        },
        Command::Measure(arguments) => golden::measure(&arguments, output).await?,
        Command::PauseDigest { bundle } => pause::digest(&bundle, output)?,
        Command::Pull(arguments) => pull::pull(&arguments, output).await?,
        Command::Mount(arguments) => mount::mount(&arguments, output).await?,
        Command::Umount(arguments) => mount::umount(&arguments, output)?,
        Command::Images(arguments) => images::images(&arguments, output)?,
        Command::Prune(arguments) => images::prune(&arguments, output)?,
        Command::Golden(GoldenCommand::Keygen(arguments)) => artifact::keygen(&arguments, output)?,
        Command::Golden(GoldenCommand::Push(arguments)) => golden::push(&arguments, output).await?,
        Command::Golden(GoldenCommand::Show(arguments)) => golden::show(&arguments, output).await?,
        Command::Golden(GoldenCommand::Verify(arguments)) => golden::verify(&arguments, output).await?,
        Command::Golden(GoldenCommand::Revoke(arguments)) => golden::revoke(&arguments, output).await?,
        Command::Golden(GoldenCommand::Publish(arguments)) => golden::publish(&arguments, output).await?,
        Command::Reference(ReferenceCommand::Compute(command)) => reference::compute(&command, output)?,
        Command::Reference(ReferenceCommand::Sign(arguments)) => reference::sign(&arguments, output)?,
        Command::Reference(ReferenceCommand::Show(arguments)) => reference::show(&arguments, output)?,
        Command::Reference(ReferenceCommand::Verify(arguments)) => reference::verify(&arguments, output)?,
        Command::Appraise(arguments) => appraise::appraise(&arguments, output)?,
        Command::Policy(PolicyCommand::Test(arguments)) => policy::test(&arguments, output)?,
        Command::Image(ImageCommand::Push(arguments)) => image_push::push(&arguments, output).await?,
        Command::Image(ImageCommand::Encrypt(arguments)) => encryption::encrypt(&arguments, output).await?,
        Command::Log(LogCommand::Show(arguments)) => log::show(&arguments, output).await?,
        Command::Log(LogCommand::Export(arguments)) => log::export(&arguments, output).await?,
        Command::Log(LogCommand::Verify(arguments)) => log::verify(&arguments, output).await?,
        Command::Audit(AuditCommand::Verify(arguments)) => audit::verify(&arguments, output).await?,
        Command::Audit(AuditCommand::Export(arguments)) => audit::export(&arguments, output).await?,
        Command::Audit(AuditCommand::Show(arguments)) => audit::show(&arguments, output).await?,
        Command::Audit(AuditCommand::Prove(arguments)) => audit::prove(&arguments, output).await?,
        Command::Explain(arguments) => explain::explain(&arguments, output).await?,
        Command::Kbs(command) => kbs::kbs(&command, output).await?,
        Command::Ak(AkCommand::Show(arguments)) => ak::show(&arguments, output).await?,
        Command::Ak(AkCommand::Request(arguments)) => enrolment::request(&arguments, output).await?,
        Command::Ak(AkCommand::Challenge(arguments)) => enrolment::challenge(&arguments, output)?,
        Command::Ak(AkCommand::Answer(arguments)) => enrolment::answer(&arguments, output).await?,
        Command::Ak(AkCommand::Enroll(arguments)) => enrolment::enroll(&arguments, output)?,
        Command::Simulated(SimulatedCommand::Pki(arguments)) => artifact::simulated_pki(&arguments, output)?,
        Command::ReasonCodes(arguments) => explain::table(&arguments, output)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tclctl", &mut std::io::stdout());
        }
    }
    Ok(Ending::Done)
}
