//! Keys of encrypted layers, from the key broker's resources.

use std::collections::BTreeMap;

use async_trait::async_trait;
use image_rs_fork::ocicrypt::{ATTESTATION_AGENT, Packet, WrappingKey};
use image_rs_fork::{KeyError, KeyProvider, WrappedKey};
use protocols::reason;
use protocols::resource::ResourcePath;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::RemoteAttestor;
use crate::error::AgentError;

/// Opens the packets of the provider `attestation-agent` in the attested session. Made for one pull: what it has
/// fetched is erased with it.
#[derive(Debug)]
pub(crate) struct BrokerKeys<'a> {
    attestor: &'a dyn RemoteAttestor,
    /// An image's layers usually share one key.
    fetched: Mutex<BTreeMap<ResourcePath, WrappingKey>>,
}

impl<'a> BrokerKeys<'a> {
    pub(crate) fn new(attestor: &'a dyn RemoteAttestor) -> Self {
        Self { attestor, fetched: Mutex::default() }
    }

    async fn key(&self, path: &ResourcePath) -> Result<WrappingKey, KeyError> {
        let mut fetched = self.fetched.lock().await;
        if let Some(key) = fetched.get(path) {
            return Ok(key.clone());
        }
        let bytes = self.attestor.resource(path.clone()).await.map_err(|error| withheld(path, &error))?;
        let key = WrappingKey::new(&bytes).map_err(|e| KeyError::NoKey(format!("{path}: {e}")))?;
        fetched.insert(path.clone(), key.clone());
        Ok(key)
    }
}

/// What the key broker will not give is no key; whatever else went wrong has a code of its own.
fn withheld(path: &ResourcePath, error: &AgentError) -> KeyError {
    if [reason::ATTESTOR_DENIED, reason::ATTESTOR_NOT_FOUND].contains(&error.code()) {
        return KeyError::NoKey(format!("the key broker does not release {path}"));
    }
    KeyError::Failed(Box::new(error.refusal()))
}

#[async_trait]
impl KeyProvider for BrokerKeys<'_> {
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        if wrapped.scheme != ATTESTATION_AGENT {
            return Err(KeyError::NoKey("a guest has the keys of its key broker alone".to_owned()));
        }
        let packet = Packet::parse(&wrapped.packet)?;
        packet.open(&self.key(packet.key_id()).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use image_rs_fork::ocicrypt::{LayerEncryptor, Recipients, key_id};
    use kbs_client::{ClientError, Question, VerifiedVerdict};
    use protocols::digest::Sha256Digest;
    use protocols::encoding::un_b64;
    use protocols::tcl::GoldenResource;
    use protocols::time::Timestamp;
    use tokio::sync::watch;

    use super::*;

    /// Answers every question for a resource by `answer`, and counts them.
    #[derive(Debug)]
    struct Vault {
        answer: fn() -> Result<Zeroizing<Vec<u8>>, ClientError>,
        asked: AtomicU32,
    }

    impl Vault {
        fn new(answer: fn() -> Result<Zeroizing<Vec<u8>>, ClientError>) -> Self {
            Self { answer, asked: AtomicU32::new(0) }
        }
    }

    #[async_trait]
    impl RemoteAttestor for Vault {
        async fn decide(&self, _: Question) -> Result<VerifiedVerdict, AgentError> {
            unreachable!()
        }
        async fn deliver(&self, _: u64) -> Result<(), AgentError> {
            unreachable!()
        }
        async fn golden(&self, _: Sha256Digest) -> Result<Option<GoldenResource>, AgentError> {
            unreachable!()
        }
        async fn resource(&self, path: ResourcePath) -> Result<Zeroizing<Vec<u8>>, AgentError> {
            assert_eq!(path.as_str(), "default/key/1");
            self.asked.fetch_add(1, Ordering::SeqCst);
            Ok((self.answer)()?)
        }
        fn delivered(&self) -> watch::Receiver<u64> {
            unreachable!()
        }
        fn last_time(&self) -> Timestamp {
            unreachable!()
        }
    }

    /// A packet under a key of 32 times 7.
    fn packet() -> WrappedKey {
        let mut recipients = Recipients::default();
        recipients.add_wrapping(key_id("kbs:///default/key/1").unwrap(), WrappingKey::new(&[7; 32]).unwrap());
        let annotations = LayerEncryptor::new(&Sha256Digest::of(b"")).unwrap().finish(&recipients).unwrap();
        let name = format!("org.opencontainers.image.enc.keys.{ATTESTATION_AGENT}");
        WrappedKey { scheme: ATTESTATION_AGENT.to_owned(), packet: un_b64(&annotations[&name]).unwrap() }
    }

    #[tokio::test]
    async fn a_key_is_fetched_once_for_all_layers() {
        let vault = Vault::new(|| Ok(Zeroizing::new(vec![7; 32])));
        let keys = BrokerKeys::new(&vault);
        for _ in 0..3 {
            assert!(keys.unwrap(&packet()).await.unwrap().starts_with(b"{\"symkey\""));
        }
        assert_eq!(vault.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_not_released_or_does_not_fit_is_no_key() {
        for answer in [
            (|| Err(ClientError::Denied { what: String::new() })) as fn() -> _,
            || Err(ClientError::NotFound { what: String::new() }),
            || Ok(Zeroizing::new(vec![7; 31])),
            || Ok(Zeroizing::new(vec![8; 32])),
        ] {
            let vault = Vault::new(answer);
            let error = BrokerKeys::new(&vault).unwrap(&packet()).await.unwrap_err();
            assert!(matches!(error, KeyError::NoKey(_)), "{error:?}");
        }
        let vault = Vault::new(|| unreachable!());
        let jwe = WrappedKey { scheme: "jwe".to_owned(), packet: b"{}".to_vec() };
        assert!(matches!(BrokerKeys::new(&vault).unwrap(&jwe).await, Err(KeyError::NoKey(_))));
    }

    #[tokio::test]
    async fn a_broker_out_of_reach_is_told_as_such() {
        let vault = Vault::new(|| Err(ClientError::Unavailable { what: "no answer".to_owned() }));
        match BrokerKeys::new(&vault).unwrap(&packet()).await.unwrap_err() {
            KeyError::Failed(refusal) => assert_eq!(refusal.code, reason::ATTESTOR_UNAVAILABLE),
            other => panic!("{other}"),
        }
    }
}
