//! `ak request`, `challenge`, `answer` and `enroll`: a key is shown to be in the TPM of an endorsement certificate.
//! Every step reads and writes files, so that guest and operator need no connection.

use std::path::Path;

use protocols::enrolment::{EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest, EnrolmentSecret};
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;
use protocols::tpm::EkKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use verifier::enrolment::{EkRoots, challenge as make_challenge, enrol};

use crate::ak::{address, pem};
use crate::cli::{AkAnswerArguments, AkChallengeArguments, AkEnrollArguments, AkRequestArguments, EkArgument};
use crate::evidence::bytes;
use crate::files::create;
use crate::outcome::Failure;
use crate::output::Output;

/// The most certificates that a folder of roots may hold.
const MAX_ROOTS: usize = 1024;

/// Prints the request.
pub(crate) async fn request(arguments: &AkRequestArguments, output: &Output) -> Result<(), Failure> {
    let device = address(&arguments.device)?;
    let kind = match arguments.ek {
        EkArgument::Rsa2048 => EkKind::Rsa2048,
        EkArgument::EccP256 => EkKind::EccP256,
    };
    let asked = tokio::task::spawn_blocking(move || attester::enrolment_request(&device, kind)).await;
    let asked = asked.map_err(|error| Failure::Fault(error.to_string()))?;
    print(&asked.map_err(|error| Failure::by_command(error.refusal()))?, output)
}

/// Prints the challenge, and keeps its secret in a file.
pub(crate) fn challenge(arguments: &AkChallengeArguments, output: &Output) -> Result<(), Failure> {
    let request: EnrolmentRequest = read(&arguments.request)?;
    let roots = EkRoots { certificates: roots(&arguments.roots)?, simulated: arguments.simulated };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Failure::Fault(error.to_string()))?;
    let (challenge, kept) = make_challenge(&request, &roots, Timestamp::now(), secret, &mut getrandom::SysRng)
        .map_err(Failure::by_command)?;
    keep(&arguments.secret, &kept)?;
    print(&challenge, output)
}

/// Prints the answer.
pub(crate) async fn answer(arguments: &AkAnswerArguments, output: &Output) -> Result<(), Failure> {
    let challenge: EnrolmentChallenge = read(&arguments.challenge)?;
    let device = address(&arguments.device)?;
    let answered = tokio::task::spawn_blocking(move || attester::answer_challenge(&device, &challenge)).await;
    let answered = answered.map_err(|error| Failure::Fault(error.to_string()))?;
    print(&answered.map_err(|error| Failure::by_command(error.refusal()))?, output)
}

/// Prints the entry of the attestor's configuration.
pub(crate) fn enroll(arguments: &AkEnrollArguments, output: &Output) -> Result<(), Failure> {
    let kept: EnrolmentSecret = read(&arguments.secret)?;
    let answer: EnrolmentAnswer = read(&arguments.answer)?;
    let ak = enrol(&kept, &answer).map_err(Failure::by_command)?;
    let (key, kind) = (pem(&ak.spki_der), ak.enrolment.register().as_str());
    if output.json() {
        let told = json!({"key": key, "kind": kind, "simulated": ak.simulated, "ek_certificate": kept.ek_certificate});
        return output.tell(|| told, Vec::new);
    }
    let simulated = ak.simulated;
    let certificate = kept.ek_certificate;
    let entry = format!(
        "# endorsement certificate {certificate}\n[[tpm.ak]]\nkind = \"{kind}\"\nsimulated = {simulated}\nkey = \"\"\"{key}\"\"\"\n"
    );
    output.raw(entry.as_bytes())
}

fn print(value: &impl Serialize, output: &Output) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Fault(error.to_string()))?;
    output.raw((text + "\n").as_bytes())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_slice(&bytes(path)?).map_err(|error| {
        let actual: String = error.to_string().chars().take(200).collect();
        let (code, subject) = (reason::ENROL_MALFORMED, path.display().to_string());
        Failure::by_command(Refusal::new(code, subject, "a file of tclctl ak as JSON", actual))
    })
}

/// Writes the secret for its owner only; an earlier one is never overwritten.
fn keep(path: &Path, kept: &EnrolmentSecret) -> Result<(), Failure> {
    let text = serde_json::to_vec(kept).map_err(|error| Failure::Fault(error.to_string()))?;
    create(path, 0o600, &text)
}

/// Every certificate in the folder's files.
fn roots(folder: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| Failure::file(folder, error))? {
        let path = entry.map_err(|error| Failure::file(folder, error))?.path();
        let content = bytes(&path)?;
        if content.starts_with(&[0x30]) {
            found.push(content);
        } else {
            let before = found.len();
            for certificate in CertificateDer::pem_slice_iter(&content) {
                let certificate = certificate.map_err(|_| Failure::file(&path, "not a certificate, DER or PEM"))?;
                found.push(certificate.to_vec());
            }
            if found.len() == before {
                return Err(Failure::file(&path, "not a certificate, DER or PEM"));
            }
        }
        if found.len() > MAX_ROOTS {
            return Err(Failure::file(folder, "more than 1024 certificates"));
        }
    }
    Ok(found)
}
