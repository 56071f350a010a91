//! `evidence detect` and `evidence collect`: what this machine offers, and evidence from it without an agent.

use attester::azure::IMDS;
use attester::detect::{Detector, Finding, Platform};
use attester::{Attester as _, AttesterConfig, AttesterError, DEFAULT_PCR};
use protocols::digest::Sha384Digest;
use protocols::environment::Environment;
use protocols::kbs;
use serde_json::{Value, json};

use crate::ak::address;
use crate::cli::{EvidenceCollectArguments, EvidenceDetectArguments, PlatformArguments, TeeArgument};
use crate::inspect::challenge;
use crate::outcome::Failure;
use crate::output::{Output, columns};

/// The TPM that is asked where none is named.
const DEVICE: &str = "/dev/tpmrm0";

/// Prints what of each platform is there.
pub(crate) async fn detect(arguments: &EvidenceDetectArguments, output: &Output) -> Result<(), Failure> {
    let tpm = arguments.device.as_deref().map(address).transpose()?;
    let root = arguments.root.clone();
    let found = blocking(move || Ok(Detector::new(&root, tpm).all())).await?;
    output.tell(|| json!({"platforms": found}), || found.iter().flat_map(lines).collect())
}

fn lines(platform: &Platform) -> Vec<String> {
    let head = format!("{}: {}", platform.kind, if platform.usable { "usable" } else { "not usable" });
    let rows: Vec<Vec<String>> = platform.findings.iter().map(row).collect();
    [head].into_iter().chain(columns(&rows).into_iter().map(|line| format!("  {line}"))).collect()
}

fn row(finding: &Finding) -> Vec<String> {
    let word = match finding.fits {
        Some(true) => "found",
        Some(false) => "MISSING",
        None => "seen",
    };
    vec![word.to_owned(), finding.what.to_owned(), finding.place.clone(), finding.found.clone()]
}

/// Collects evidence over a challenge, as the agent of this platform would.
pub(crate) async fn collect(arguments: &EvidenceCollectArguments, output: &Output) -> Result<(), Failure> {
    let binding = kbs::challenge_binding(&challenge(&arguments.challenge)?);
    let evidence = evidence(arguments.tee, &arguments.platform, binding, output).await?;
    write(arguments, &evidence, output)
}

/// This machine's evidence over a binding.
pub(crate) async fn evidence(
    tee: TeeArgument,
    options: &PlatformArguments,
    binding: Sha384Digest,
    output: &Output,
) -> Result<Value, Failure> {
    let config = config(tee, options)?;
    if config.simulated() {
        output.note("SIMULATED: this TPM is software behind a socket");
    }
    blocking(move || {
        let scratch = tempfile::tempdir().map_err(|error| Failure::Io(error.to_string()))?;
        let refused = |error: AttesterError| Failure::by_command(error.refusal());
        // Whoever verifies decides whether a simulated platform counts; no register is extended.
        let attester = attester::open(&config, Environment::Development, scratch.path()).map_err(refused)?;
        attester.evidence(&binding).map_err(refused)
    })
    .await
}

fn write(arguments: &EvidenceCollectArguments, evidence: &Value, output: &Output) -> Result<(), Failure> {
    let text = format!("{evidence}\n");
    match &arguments.out {
        None => output.raw(text.as_bytes()),
        Some(path) => std::fs::write(path, text).map_err(|error| Failure::file(path, error)),
    }
}

/// The attester of a platform, with the options it has; one that it has not is refused.
fn config(tee: TeeArgument, options: &PlatformArguments) -> Result<AttesterConfig, Failure> {
    let PlatformArguments { device, vmpl, imds } = options;
    let (device, vmpl, imds) = (device.as_deref(), *vmpl, imds.as_deref());
    let options = [("--device", device.is_some()), ("--vmpl", vmpl.is_some()), ("--imds", imds.is_some())];
    let device = || address(device.unwrap_or(DEVICE));
    let imds = || imds.unwrap_or(IMDS).to_owned();
    let (config, given) = match tee {
        TeeArgument::Tpm => (AttesterConfig::Tpm { device: device()?, pcr: DEFAULT_PCR }, [true, false, false]),
        TeeArgument::AzSnpVtpm => {
            (AttesterConfig::AzSnpVtpm { device: device()?, pcr: DEFAULT_PCR, imds: imds() }, [true, false, true])
        }
        TeeArgument::AzTdxVtpm => {
            (AttesterConfig::AzTdxVtpm { device: device()?, pcr: DEFAULT_PCR, imds: imds() }, [true, false, true])
        }
        TeeArgument::Snp => (AttesterConfig::Snp { vmpl: vmpl.unwrap_or_default() }, [false, true, false]),
        TeeArgument::Tdx => (AttesterConfig::Tdx {}, [false; 3]),
    };
    for ((name, present), wanted) in options.into_iter().zip(given) {
        if present && !wanted {
            return Err(Failure::Usage(format!("{name}: not an option of this platform")));
        }
    }
    Ok(config)
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(run).await.map_err(|error| Failure::Fault(error.to_string()))?
}
