//! Commands around the endorsement key (TCG EK Credential Profile, templates L-1 and L-2): its certificate in NV memory,
//! and activating a credential, which shows that an attestation key is in the same TPM.

use serde::{Deserialize, Serialize};

use super::command::{
    CC_CREATE_PRIMARY, TPM_ALG_NULL, TPM_RH_ENDORSEMENT, TPM_ST_NO_SESSIONS, TPM_ST_SESSIONS, body, parameters,
    password_session, sized,
};
use super::{ALG_SHA256, Command, Reader, TpmError};

const CC_ACTIVATE_CREDENTIAL: u32 = 0x147;
const CC_POLICY_SECRET: u32 = 0x151;
const CC_START_AUTH_SESSION: u32 = 0x176;
const TPM_RH_NULL: u32 = 0x4000_0007;
const TPM_SE_POLICY: u8 = 0x01;
const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const ECC_NIST_P256: u16 = 0x0003;
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const EK_ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 16 | 1 << 17;
/// PolicyA of the profile: TPM2_PolicySecret(TPM_RH_ENDORSEMENT), SHA-256.
const EK_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24, 0xFD, 0x52, 0xD7,
    0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA,
];
/// The largest digest, and so the largest nonce, credential and HMAC: SHA-512.
const MAX_DIGEST: usize = 64;

/// The endorsement keys whose certificates and templates every TPM of the PC Client profile has one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EkKind {
    /// RSA 2048, template L-1.
    Rsa2048,
    /// ECC P-256, template L-2.
    EccP256,
}

impl EkKind {
    /// Both, in the order they are looked for.
    pub const ALL: [Self; 2] = [Self::Rsa2048, Self::EccP256];

    /// The NV index of the key's certificate.
    #[must_use]
    pub const fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01C0_0002,
            Self::EccP256 => 0x01C0_000A,
        }
    }

    fn template(self) -> Vec<u8> {
        let kind = match self {
            Self::Rsa2048 => ALG_RSA,
            Self::EccP256 => ALG_ECC,
        };
        let mut out = Vec::from(kind.to_be_bytes());
        out.extend_from_slice(&ALG_SHA256.to_be_bytes());
        out.extend_from_slice(&EK_ATTRIBUTES.to_be_bytes());
        out.extend_from_slice(&sized(&EK_POLICY));
        for value in [ALG_AES, 128, ALG_CFB, TPM_ALG_NULL] {
            out.extend_from_slice(&value.to_be_bytes());
        }
        match self {
            Self::Rsa2048 => {
                out.extend_from_slice(&2048u16.to_be_bytes());
                // The default exponent; a unique field of zeros.
                out.extend_from_slice(&0u32.to_be_bytes());
                out.extend_from_slice(&sized(&[0; 256]));
            }
            Self::EccP256 => {
                out.extend_from_slice(&ECC_NIST_P256.to_be_bytes());
                out.extend_from_slice(&TPM_ALG_NULL.to_be_bytes());
                out.extend_from_slice(&sized(&[0; 32]));
                out.extend_from_slice(&sized(&[0; 32]));
            }
        }
        out
    }
}

/// TPM2_CreatePrimary of the endorsement key: gives its transient handle.
#[must_use]
pub fn create_primary_ek(kind: EkKind) -> Command<u32> {
    // Empty authorisation and no data; template; no outside info; no creation PCRs.
    let (sensitive, template) = (sized(&[0; 4]), sized(&kind.template()));
    let parts: [&[u8]; 3] = [&sensitive, &template, &[0; 6]];
    Command::authorised(CC_CREATE_PRIMARY, &[TPM_RH_ENDORSEMENT], &parts, |bytes| {
        let mut reader = body(bytes, TPM_ST_SESSIONS, "TPM2_CreatePrimary")?;
        let handle = reader.u32()?;
        parameters(reader)?;
        Ok(handle)
    })
}

/// TPM2_StartAuthSession of a policy session with SHA-256, neither salted nor bound: gives its handle, to be flushed.
///
/// No secret is authorised by it, so its nonces protect nothing and are zeros.
#[must_use]
pub fn start_policy_session() -> Command<u32> {
    let (null, nonce) = (TPM_RH_NULL.to_be_bytes(), sized(&[0; 32]));
    let parts: [&[u8]; 7] =
        [&null, &null, &nonce, &[0; 2], &[TPM_SE_POLICY], &TPM_ALG_NULL.to_be_bytes(), &ALG_SHA256.to_be_bytes()];
    Command::plain(CC_START_AUTH_SESSION, &parts, |bytes| {
        let mut reader = body(bytes, TPM_ST_NO_SESSIONS, "TPM2_StartAuthSession")?;
        let handle = reader.u32()?;
        reader.sized(MAX_DIGEST)?;
        reader.end()?;
        Ok(handle)
    })
}

/// TPM2_PolicySecret over the endorsement hierarchy, whose password is empty: fulfils the endorsement key's policy.
#[must_use]
pub fn policy_secret_endorsement(session: u32) -> Command<()> {
    // No nonceTPM, no cpHash, no policyRef, no expiration.
    Command::authorised(CC_POLICY_SECRET, &[TPM_RH_ENDORSEMENT, session], &[&[0; 2 + 2 + 2 + 4]], |bytes| {
        let mut reader = parameters(body(bytes, TPM_ST_SESSIONS, "TPM2_PolicySecret")?)?;
        reader.sized(MAX_DIGEST)?;
        // TPMT_TK_AUTH: tag, hierarchy, digest.
        reader.take(6)?;
        reader.sized(MAX_DIGEST)?;
        reader.end()
    })
}

/// TPM2_ActivateCredential: gives the secret when `ak` has the name that the credential was made for, and `ek` is the
/// key that it was made to. `session` has fulfilled the endorsement key's policy.
#[must_use]
pub fn activate_credential(ak: u32, ek: u32, session: u32, credential: &[u8], secret: &[u8]) -> Command<Vec<u8>> {
    let mut sessions = password_session();
    sessions.extend_from_slice(&session.to_be_bytes());
    sessions.extend_from_slice(&sized(&[0; 32]));
    // continueSession: it is flushed whatever happens. No HMAC: the session has no key.
    sessions.extend_from_slice(&[1, 0, 0]);
    let parts: [&[u8]; 2] = [&sized(credential), &sized(secret)];
    Command::with_sessions(CC_ACTIVATE_CREDENTIAL, &[ak, ek], &sessions, &parts, |bytes| {
        let mut reader = body(bytes, TPM_ST_SESSIONS, "TPM2_ActivateCredential")?;
        let size = usize::try_from(reader.u32()?).map_err(|_| TpmError::Value("parameter size"))?;
        let mut parameters = Reader::new(reader.take(size)?, "TPM2_ActivateCredential");
        for _ in 0..2 {
            reader.sized(MAX_DIGEST)?;
            reader.u8()?;
            reader.sized(MAX_DIGEST)?;
        }
        reader.end()?;
        let secret = parameters.sized(MAX_DIGEST)?.to_vec();
        parameters.end()?;
        Ok(secret)
    })
}
