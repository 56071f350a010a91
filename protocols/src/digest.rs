//! Exact-length digests: a digest of the wrong length cannot be represented.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha384};

/// A digest's text was not `<algorithm>:<lower-case hex of the exact length>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {algorithm} digest")]
pub struct DigestError {
    /// The algorithm that was expected, such as `sha256`.
    pub algorithm: &'static str,
    /// The refused text, cut at 80 characters.
    pub text: String,
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $hasher:ty, $label:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Size in bytes.
            pub const LEN: usize = $len;

            /// Takes the digest's bytes as they are.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Hashes `bytes`.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(<$hasher>::digest(bytes).into())
            }

            /// Hashes the concatenation of `parts`.
            #[must_use]
            pub fn of_parts(parts: &[&[u8]]) -> Self {
                let mut hasher = <$hasher>::new();
                for part in parts {
                    hasher.update(part);
                }
                Self(hasher.finalize().into())
            }

            /// The digest's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Lower-case hexadecimal without the algorithm's name.
            #[must_use]
            pub fn hex(&self) -> String {
                hex::encode(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, ":{}"), self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                let refused = || DigestError { algorithm: $label, text: text.chars().take(80).collect() };
                let hex_text = text.strip_prefix(concat!($label, ":")).ok_or_else(refused)?;
                if hex_text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(refused());
                }
                let mut bytes = [0u8; $len];
                hex::decode_to_slice(hex_text, &mut bytes).map_err(|_| refused())?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest!(
    /// A SHA-256 digest; text form `sha256:<64 hex>`, as in OCI descriptors.
    Sha256Digest, Sha256, "sha256", 32
);
digest!(
    /// A SHA-384 digest; text form `sha384:<96 hex>`.
    Sha384Digest, Sha384, "sha384", 48
);
