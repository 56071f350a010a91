//! `ak show`: the TPM's attestation key, for enrolment.

use attester::{AttesterConfig, DEFAULT_PCR, TpmAddress};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::encoding::b64;
use protocols::environment::Environment;
use protocols::kbs::TpmEvidence;
use protocols::register::RegisterValue;
use serde_json::json;

use crate::cli::AkShowArguments;
use crate::outcome::Failure;
use crate::output::Output;

/// What this command reads from a TPM.
pub(crate) enum Asked {
    /// The attestation key, from a quote over a challenge of ours.
    Key,
    /// This PCR.
    Register(u32),
}

/// A TPM's answer.
pub(crate) enum Told {
    Key(Vec<u8>),
    Register(RegisterValue),
}

/// The TPM's address, and whether what is behind it is simulated.
pub(crate) fn address(text: &str) -> Result<TpmAddress, Failure> {
    text.parse::<TpmAddress>().map_err(|error| Failure::Usage(error.to_string()))
}

/// Asks a TPM directly. It is only read: whether it may be simulated is the reader's business, and said.
pub(crate) async fn ask(device: TpmAddress, asked: Asked) -> Result<Told, Failure> {
    let read = move || -> Result<Told, Failure> {
        let pcr = match asked {
            Asked::Key => DEFAULT_PCR,
            Asked::Register(pcr) => pcr,
        };
        let scratch = tempfile::tempdir().map_err(|error| Failure::Io(error.to_string()))?;
        let attester = attester::open(&AttesterConfig::Tpm { device, pcr }, Environment::Development, scratch.path())
            .map_err(|error| Failure::by_command(error.refusal()))?;
        Ok(match asked {
            Asked::Register(_) => {
                Told::Register(attester.read_register().map_err(|error| Failure::by_command(error.refusal()))?)
            }
            Asked::Key => {
                let evidence = attester
                    .evidence(&Sha384Digest::of(b"tclctl ak show"))
                    .map_err(|error| Failure::by_command(error.refusal()))?;
                let evidence: TpmEvidence = serde_json::from_value(evidence)
                    .map_err(|error| Failure::Fault(format!("the TPM's evidence: {error}")))?;
                Told::Key(evidence.ak_public)
            }
        })
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| Failure::Fault(error.to_string()))?
}

/// Prints the key as PEM.
pub(crate) async fn show(arguments: &AkShowArguments, output: &Output) -> Result<(), Failure> {
    let device = address(&arguments.device)?;
    let simulated = device.simulated();
    let Told::Key(der) = ask(device, Asked::Key).await? else {
        return Err(Failure::Fault("the TPM answered something else".to_owned()));
    };
    let pem = pem(&der);
    if simulated {
        output.note("SIMULATED: this TPM is software behind a socket; enrol it in development only");
    }
    let name = Sha256Digest::of(&der).hex();
    if output.json() {
        return output.tell(|| json!({"key": pem, "sha256": name, "simulated": simulated}), Vec::new);
    }
    output.raw(pem.as_bytes())
}

pub(crate) fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
    let encoded = b64(der);
    let mut rest = encoded.as_str();
    while let Some((line, after)) = rest.split_at_checked(64) {
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text + "-----END PUBLIC KEY-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::keys::{KeyKind, SigningKey, VerifyingKey};

    #[test]
    fn the_printed_pem_is_the_key() {
        for kind in [KeyKind::EcdsaP256, KeyKind::Ed25519] {
            let key = SigningKey::generate(kind).unwrap().verifying_key();
            assert_eq!(pem(&key.to_der()), key.to_pem().unwrap());
            assert_eq!(VerifyingKey::from_pem(&pem(&key.to_der())).unwrap(), key);
        }
    }
}
