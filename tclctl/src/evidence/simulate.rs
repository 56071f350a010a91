//! `evidence simulate`: SNP evidence from readable text, under simulated roots of its own.

use std::path::Path;

use protocols::encoding::b64;
use protocols::snp::{POLICY_DEBUG, POLICY_MIGRATE_MA, TcbVersion};
use serde::Deserialize;
use serde_json::json;
use simulated_tee::{Chip, Params, Pki, SimulatedError};

use super::{exactly, text};
use crate::cli::EvidenceSimulateArguments;
use crate::outcome::Failure;
use crate::output::Output;

/// The bit of a guest policy that is always one.
const POLICY_ONE: u64 = 1 << 17;

/// The text, TOML. Bytes are in hex and exactly as long as their field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    product: Product,
    #[serde(default = "newest_common")]
    version: u32,
    /// A provider's name: its VLEK signs.
    provider: Option<String>,
    tcb: Option<TcbVersion>,
    #[serde(default)]
    policy: Vec<Bit>,
    #[serde(default)]
    vmpl: u32,
    report_data: String,
    host_data: Option<String>,
    measurement: Option<String>,
    report_id: Option<String>,
}

const fn newest_common() -> u32 {
    3
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Product {
    Milan,
    Turin,
}

/// Guest policy bits by name.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Bit {
    Smt,
    Migrate,
    Debug,
    SingleSocket,
}

impl Bit {
    const fn value(self) -> u64 {
        match self {
            Self::Smt => 1 << 16,
            Self::Migrate => POLICY_MIGRATE_MA,
            Self::Debug => POLICY_DEBUG,
            Self::SingleSocket => 1 << 20,
        }
    }
}

/// Makes the roots and the report. Two RSA-4096 keys are made, which takes seconds.
pub(crate) fn simulate(arguments: &EvidenceSimulateArguments, output: &Output) -> Result<(), Failure> {
    let path = &arguments.file;
    let wanted: Wanted = toml::from_str(&text(path)?)
        .map_err(|error| Failure::Usage(format!("{}: {}", path.display(), error.message())))?;
    let params = params(&wanted)?;
    let folder = &arguments.folder;
    let pki = Pki::create_for(folder, &chip(&wanted)?).map_err(failed)?;
    let report = pki.report(&params).map_err(failed)?;
    let chain = pem(pki.ark_der()) + &pem(pki.ask_der());
    let files: [(&str, &[u8]); 3] =
        [("report.bin", report.to_bytes()), ("vek.der", pki.vcek_der()), ("chain.pem", chain.as_bytes())];
    for (name, bytes) in files {
        write_new(&folder.join(name), bytes)?;
    }
    output.tell(
        || json!({"folder": folder, "files": files.map(|(name, _)| name), "simulated": true}),
        || {
            let verify = "verify it with --allow-simulated --report report.bin --vek vek.der --chain chain.pem";
            vec![format!("{}: a SIMULATED report; {verify}", folder.display())]
        },
    )
}

fn chip(wanted: &Wanted) -> Result<Chip, Failure> {
    let chip = match wanted.product {
        Product::Milan => Chip::random(),
        Product::Turin => Chip::random_turin(),
    };
    let chip = chip.map_err(failed)?;
    let chip = Chip { tcb: wanted.tcb.unwrap_or(chip.tcb), ..chip };
    Ok(match &wanted.provider {
        Some(provider) => chip.of_provider(provider),
        None => chip,
    })
}

fn params(wanted: &Wanted) -> Result<Params, Failure> {
    fn field<const N: usize>(text: Option<&String>, name: &str, otherwise: [u8; N]) -> Result<[u8; N], Failure> {
        text.map_or(Ok(otherwise), |text| exactly(text, name))
    }
    let report_data = exactly(&wanted.report_data, "report_data")?;
    let host_data = field(wanted.host_data.as_ref(), "host_data", [0; 32])?;
    let report_id = field(wanted.report_id.as_ref(), "report_id", [0x1D; 32])?;
    let good = Params::new(report_data, host_data, report_id);
    Ok(Params {
        version: wanted.version,
        policy: wanted.policy.iter().fold(POLICY_ONE, |policy, bit| policy | bit.value()),
        vmpl: wanted.vmpl,
        measurement: field(wanted.measurement.as_ref(), "measurement", good.measurement)?,
        ..good
    })
}

fn pem(der: &[u8]) -> String {
    let text = b64(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

fn failed(error: SimulatedError) -> Failure {
    match error {
        SimulatedError::File { path, source } => Failure::file(&path, source),
        other => Failure::Usage(other.to_string()),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    made.and_then(|mut file| file.write_all(bytes)).map_err(|error| Failure::file(path, error))
}
