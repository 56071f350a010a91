//! The TPM's side of enrolling its attestation key: the request, and the answer to a challenge.

use protocols::enrolment::{EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest};
use protocols::tpm::{self, EkKind, NvReader};

use super::transport::{Connection, TransportError};
use super::{Key, Session, unavailable};
use crate::{AttesterError, TpmAddress};

/// The largest certificate, in bytes.
const MAX_CERTIFICATE: usize = 8192;

/// Reads what an enrolment starts from: the attestation key's public area and the endorsement certificate of `kind`.
///
/// # Errors
/// [`AttesterError::EvidenceUnavailable`] when the TPM does not answer or holds no such certificate.
pub fn enrolment_request(address: &TpmAddress, kind: EkKind) -> Result<EnrolmentRequest, AttesterError> {
    let mut session = open(address)?;
    let ak_public = session.with_ak(Key::Primary, |_, ak| Ok(ak.area.clone())).map_err(|error| unavailable(&error))?;
    let index = kind.certificate_index();
    let content = session.nv(NvReader::Index, index, MAX_CERTIFICATE).map_err(|error| {
        let detail = format!("the endorsement certificate in NV {index:#010x}: {error}");
        AttesterError::EvidenceUnavailable { detail }
    })?;
    Ok(EnrolmentRequest { ak_public, ek_certificate: certificate(content), simulated: address.simulated() })
}

/// Lets the TPM open a challenge. It does so only when the challenge was made to its endorsement key, for its own
/// attestation key.
///
/// # Errors
/// [`AttesterError::EvidenceUnavailable`] when it does not.
pub fn answer_challenge(
    address: &TpmAddress,
    challenge: &EnrolmentChallenge,
) -> Result<EnrolmentAnswer, AttesterError> {
    let mut session = open(address)?;
    session.with_ak(Key::Primary, |tpm, ak| activate(tpm, ak.handle, challenge)).map_err(|error| unavailable(&error))
}

fn open(address: &TpmAddress) -> Result<Session, AttesterError> {
    Session::open(address).map_err(|error| unavailable(&error.into()))
}

fn activate(tpm: &mut Connection, ak: u32, challenge: &EnrolmentChallenge) -> Result<EnrolmentAnswer, TransportError> {
    let ek = tpm.run(&tpm::create_primary_ek(challenge.ek))?;
    let secret = with_session(tpm, |tpm, session| {
        tpm.run(&tpm::policy_secret_endorsement(session))?;
        tpm.run(&tpm::activate_credential(ak, ek, session, &challenge.credential, &challenge.encrypted_seed))
    });
    let flushed = tpm.run(&tpm::flush_context(ek));
    let secret = secret?;
    flushed?;
    Ok(EnrolmentAnswer { secret })
}

/// Starts a policy session, uses it, and ends it whatever happened.
fn with_session<T>(
    tpm: &mut Connection,
    run: impl FnOnce(&mut Connection, u32) -> Result<T, TransportError>,
) -> Result<T, TransportError> {
    let session = tpm.run(&tpm::start_policy_session())?;
    let result = run(tpm, session);
    let flushed = tpm.run(&tpm::flush_context(session));
    let value = result?;
    flushed?;
    Ok(value)
}

/// The certificate at the start of an NV index: some makers fill the rest of it.
fn certificate(mut content: Vec<u8>) -> Vec<u8> {
    if let [0x30, 0x82, high, low, ..] = *content.as_slice() {
        content.truncate(4 + usize::from(u16::from_be_bytes([high, low])));
    }
    content
}
