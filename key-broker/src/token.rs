//! The session token: an ES256 JWT of ours that carries all there is to know of an attested session, and is an EAR.

use std::collections::BTreeMap;

use appraisal::Appraisal;
use appraisal::ear::{COMPONENT, Submod, VerifierId};
use p256::ecdsa::VerifyingKey;
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::jwe::PublicKey;
use protocols::jws::{self, Signer};
use protocols::kbs::{RuntimeData, Tee, TeePubKey};
use protocols::reason;
use protocols::register::RegisterKind;
use protocols::tcl::LogBinding;
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::BrokerError;
use crate::initdata::MEMBERS;

/// JWS `typ` of tokens.
const TYP: &str = "JWT";
/// Who issues them.
const ISSUER: &str = "trusted-container-launcher/key-broker";

/// Claims of a token. Whoever holds one of our signature attested exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    iss: String,
    iat: u64,
    exp: u64,
    /// Names this session in our log.
    pub(crate) jti: String,
    /// Which evidence it showed.
    pub(crate) tee: Tee,
    /// The attestor's environment.
    pub(crate) environment: Environment,
    /// Whether the platform is simulated.
    pub(crate) simulated: bool,
    /// Whether the attestor only watched its policy: what it refuses may be in here.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) observe: bool,
    /// What stands behind the register of this evidence; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    register: Option<RegisterKind>,
    /// The guest that the evidence stands for, where its log was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guest: Option<GuestId>,
    /// The challenge's nonce as it travelled.
    pub(crate) nonce: String,
    /// The session's key.
    #[serde(rename = "tee-pubkey")]
    pub(crate) tee_pubkey: TeePubKey,
    /// The log's head the guest bound; only in sessions of our own protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<LogBinding>,
    eat_profile: String,
    #[serde(rename = "ear.verifier-id")]
    verifier: VerifierId,
    /// What the appraisal policy found, by component.
    submods: BTreeMap<String, Submod>,
    /// The token's own signature, of a token that was verified: no other claims have it.
    #[serde(skip)]
    signature: Option<String>,
}

/// What a new session is made of.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) jti: String,
    pub(crate) tee: Tee,
    pub(crate) environment: Environment,
    pub(crate) simulated: bool,
    pub(crate) observe: bool,
    pub(crate) register: Option<RegisterKind>,
    pub(crate) guest: Option<GuestId>,
    pub(crate) data: RuntimeData,
}

impl Session {
    pub(crate) fn new(new: NewSession, appraisal: &Appraisal, now: Timestamp, seconds: u64) -> Self {
        let NewSession { jti, tee, environment, simulated, observe, register, guest, data } = new;
        let ear = appraisal.ear().clone();
        Self {
            iss: ISSUER.to_owned(),
            iat: now.0,
            exp: now.plus(seconds).0,
            jti,
            tee,
            environment,
            simulated,
            observe,
            register,
            guest,
            nonce: data.nonce,
            tee_pubkey: data.tee_pubkey,
            log: data.log,
            eat_profile: ear.eat_profile,
            verifier: ear.verifier,
            submods: ear.submods,
            signature: None,
        }
    }

    /// This session once evidence has shown whose it is, with the result over its log; `None` when that was known.
    pub(crate) fn of(&self, guest: GuestId, appraisal: &Appraisal) -> Option<Self> {
        self.guest.is_none().then(|| {
            // Initdata is shown once, with the attestation.
            let told = self.submods.get(COMPONENT).map(|submod| &submod.evidence);
            let told = MEMBERS.into_iter().filter_map(|name| Some((name, told?.get(name)?.clone())));
            let appraisal = told.fold(appraisal.clone(), |appraisal, (name, value)| appraisal.with_member(name, value));
            Self { guest: Some(guest), submods: appraisal.ear().submods.clone(), signature: None, ..self.clone() }
        })
    }

    /// When its evidence was judged; its challenge was given out before.
    pub(crate) const fn issued_at(&self) -> Timestamp {
        Timestamp(self.iat)
    }

    /// Signs the claims.
    pub(crate) fn sign(&self, key: &Signer) -> Result<String, BrokerError> {
        key.sign(TYP, None, self).map_err(|_| BrokerError::Internal("a token has no JSON form"))
    }

    /// Checks a token of ours; whether it counts is [`Session::counts`] to say.
    pub(crate) fn verify(token: &str, key: &VerifyingKey) -> Result<Self, BrokerError> {
        let mut session: Self =
            jws::verify(TYP, token, key).map_err(|_| BrokerError::session("a token of another attestor"))?;
        if session.iss != ISSUER {
            return Err(BrokerError::session("a token of another issuer"));
        }
        session.signature = token.rsplit('.').next().map(str::to_owned);
        Ok(session)
    }

    /// Whether it has expired.
    pub(crate) const fn expired(&self, now: Timestamp) -> bool {
        now.0 >= self.exp
    }

    /// Whether a token of ours counts now and here: an attestor that became one for production, with the key it had,
    /// takes none of its earlier ones.
    pub(crate) fn counts(&self, environment: Environment, now: Timestamp) -> Result<(), BrokerError> {
        if self.expired(now) {
            return Err(BrokerError::session("a token that has expired"));
        }
        let of_development = self.simulated || self.observe || self.environment != Environment::Production;
        if environment == Environment::Production && of_development {
            let actual = match (self.simulated, self.observe) {
                (true, _) => "of a SIMULATED platform",
                (false, true) => "of an attestor that only observed its policy",
                (false, false) => "of development",
            };
            return Err(BrokerError::refused(reason::POLICY_ENVIRONMENT, "token", "one of production", actual));
        }
        Ok(())
    }

    /// The token's signature, where a token was verified.
    pub(crate) fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// The session's key for checking what it signs.
    pub(crate) fn key(&self) -> Result<VerifyingKey, BrokerError> {
        let key = PublicKey::of(&self.tee_pubkey).map_err(|_| BrokerError::session("a token without a session key"))?;
        let key = key.p256().ok_or_else(|| BrokerError::session("a session whose key is not on P-256"))?;
        Ok(VerifyingKey::from(key))
    }

    /// What evidence of this session over `log` is bound to.
    pub(crate) fn runtime_data(&self, log: &LogBinding) -> RuntimeData {
        RuntimeData { nonce: self.nonce.clone(), tee_pubkey: self.tee_pubkey.clone(), log: Some(log.clone()) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use protocols::jwe;

    use super::*;

    pub(crate) fn session() -> Session {
        let tee_pubkey = jwe::jwk(&jwe::generate().unwrap().public_key());
        Session {
            iss: ISSUER.into(),
            iat: 1000,
            exp: 1300,
            jti: "00".into(),
            tee: Tee::Tpm,
            environment: Environment::Development,
            simulated: true,
            observe: false,
            register: Some(RegisterKind::TpmListed),
            guest: None,
            nonce: "bm9uY2U=".into(),
            tee_pubkey,
            log: None,
            eat_profile: appraisal::ear::PROFILE.into(),
            verifier: VerifierId::this(),
            submods: BTreeMap::new(),
            signature: None,
        }
    }

    fn signer(byte: u8) -> Signer {
        Signer::new(&p256::ecdsa::SigningKey::from_slice(&[byte; 32]).unwrap()).unwrap()
    }

    #[test]
    fn counts_until_it_expires_and_only_under_our_key() {
        let (key, other) = (signer(1), signer(2));
        let token = session().sign(&key).unwrap();
        let verified = Session::verify(&token, key.verifying_key()).unwrap();
        assert!(verified.counts(Environment::Development, Timestamp(1299)).is_ok());
        assert!(verified.counts(Environment::Development, Timestamp(1300)).is_err());
        assert!(Session::verify(&token, other.verifying_key()).is_err());
    }

    #[test]
    fn production_takes_no_token_of_development_or_of_a_simulated_platform() {
        for (environment, simulated, word) in [
            (Environment::Production, false, "pass"),
            (Environment::Production, true, "policy.environment"),
            (Environment::Development, false, "policy.environment"),
            (Environment::Development, true, "policy.environment"),
        ] {
            let session = Session { environment, simulated, ..session() };
            let result = session.counts(Environment::Production, Timestamp(1001));
            let code = result.as_ref().map_or_else(|error| error.refusal().code.as_str(), |()| "pass");
            assert_eq!(code, word, "{environment} {simulated}");
            session.counts(Environment::Development, Timestamp(1001)).unwrap();
        }
    }

    /// Everything signed by the pinned key has its own type: a receipt or verdict is no token.
    #[test]
    fn another_type_of_token_or_another_issuer_is_no_session() {
        let key = signer(1);
        let verdict = key.sign(protocols::tcl::VERDICT_TYP, None, &session()).unwrap();
        assert!(Session::verify(&verdict, key.verifying_key()).is_err());
        let foreign = Session { iss: "someone".into(), ..session() }.sign(&key).unwrap();
        assert!(Session::verify(&foreign, key.verifying_key()).is_err());
    }
}
