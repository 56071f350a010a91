//! Where the keys of layers come from.

use async_trait::async_trait;
use protocols::reason::Refusal;
use zeroize::Zeroizing;

use super::{Encryption, LayerSecret, WrappedKey};
use crate::error::ImageError;
use crate::manifest::Layer;

/// Unwraps the secrets of encrypted layers. Asked once for each wrapped key of each encrypted layer of a pull, in
/// order, until one of the layer's opens.
#[async_trait]
pub trait KeyProvider: Send + Sync + std::fmt::Debug {
    /// What the packet wraps.
    ///
    /// # Errors
    /// [`KeyError::NoKey`] when this provider cannot open it, also for schemes it does not know.
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, KeyError>;
}

/// A wrapped key that was not opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is for somebody else, or not well formed, or its key is not released; in words.
    #[error("{0}")]
    NoKey(String),
    /// Whoever may have the key could not be asked; the refusal says why.
    #[error("{0}")]
    Failed(Box<Refusal>),
}

/// Opens nothing: for whoever takes unencrypted images only.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKeys;

#[async_trait]
impl KeyProvider for NoKeys {
    async fn unwrap(&self, _: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        Err(KeyError::NoKey("no keys were given".to_owned()))
    }
}

/// The secret of every layer that is encrypted, in the layers' order.
///
/// # Errors
/// `image.key` when no wrapped key of a layer opens, `image.decrypt` when one opens and holds no usable secret, and
/// whatever keeps the provider from being asked.
pub(crate) async fn resolve(layers: &[Layer], keys: &dyn KeyProvider) -> Result<Vec<Option<LayerSecret>>, ImageError> {
    let mut secrets = Vec::with_capacity(layers.len());
    for layer in layers {
        secrets.push(match &layer.encryption {
            None => None,
            Some(encryption) => Some(secret(layer, encryption, keys).await?),
        });
    }
    Ok(secrets)
}

async fn secret(layer: &Layer, encryption: &Encryption, keys: &dyn KeyProvider) -> Result<LayerSecret, ImageError> {
    let mut problems = Vec::new();
    let mut unavailable = None;
    for wrapped in &encryption.wrapped {
        match keys.unwrap(wrapped).await {
            Ok(unwrapped) => {
                return LayerSecret::parse(&unwrapped, encryption.mac)
                    .map_err(|problem| ImageError::Decrypt { subject: layer.subject.clone(), problem });
            }
            Err(KeyError::NoKey(problem)) => problems.push(format!("{}: {problem}", wrapped.scheme)),
            Err(KeyError::Failed(refusal)) => unavailable = Some(refusal),
        }
    }
    Err(match unavailable {
        Some(refusal) => ImageError::KeyUnavailable(refusal),
        None => ImageError::Key { subject: layer.subject.clone(), problem: problems.join("; ") },
    })
}
