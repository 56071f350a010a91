//! Why nothing could be encrypted, or a key not be read.

/// A key that cannot be used, or an encryption that did not happen. Of whoever prepares images and keys; a launch
/// ends with an [`crate::ImageError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionError {
    /// Not a private key we can use.
    #[error("not an unencrypted PEM private key (RSA from 2048 bits, P-256, P-384 or P-521)")]
    PrivateKey,
    /// Not a public key we can use.
    #[error("not a PEM public key (RSA from 2048 bits, P-256, P-384 or P-521)")]
    PublicKey,
    /// A wrapping key of another length.
    #[error("a wrapping key has 32 bytes, not {length}")]
    WrappingKey {
        /// Its bytes.
        length: usize,
    },
    /// Not the name of a key broker's key.
    #[error("{text:?} is not kbs:///repository/type/tag")]
    KeyId {
        /// As given.
        text: String,
    },
    /// Nobody could open it.
    #[error("an encrypted image needs a recipient")]
    NoRecipient,
    /// The system gave no randomness.
    #[error("no randomness")]
    Random,
    /// The cipher refused; no input of ours makes it.
    #[error("the cipher refused")]
    Cipher,
}
