//! Initdata: what the guest's owner hands to one guest beside its image, by way of the untrusted host.
//!
//! A TOML text (CoCo initdata specification, version 0.1.0):
//!
//! ```toml
//! version = "0.1.0"
//! algorithm = "sha256"   # or sha384, sha512: of this text, byte for byte
//! [data]
//! "policy.rego" = '''…'''
//! ```
//!
//! The digest is over the text, so nothing is normalised before it is taken. Until the platform's evidence was found
//! to bind that digest, this is data from the host.

mod files;
mod image;
mod scan;

use std::collections::BTreeMap;
use std::path::Path;

use protocols::digest::{Sha256Digest, Sha384Digest};
use serde::Deserialize;
use sha2::{Digest as _, Sha512};

use crate::BootError;
pub use image::MAX_IMAGE;
pub use scan::find;

/// The longest initdata text, in bytes: it travels with the evidence, in one request of the attestor's.
pub const MAX_TEXT: usize = 1024 * 1024;
/// The most files in one initdata.
const MAX_FILES: usize = 64;
/// The longest name of one, in bytes.
const MAX_NAME: usize = 128;
/// The one version of the specification.
const VERSION: &str = "0.1.0";

/// The digest algorithm an initdata names for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// SHA-256: fits SNP's HOST_DATA.
    #[serde(rename = "sha256", alias = "sha-256")]
    Sha256,
    /// SHA-384: fits TDX's MRCONFIGID.
    #[serde(rename = "sha384", alias = "sha-384")]
    Sha384,
    /// SHA-512: fits no platform's field without cutting.
    #[serde(rename = "sha512", alias = "sha-512")]
    Sha512,
}

/// Digest of an initdata's text under its own algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitdataDigest {
    /// 32 bytes.
    Sha256(Sha256Digest),
    /// 48 bytes.
    Sha384(Sha384Digest),
    /// 64 bytes.
    Sha512([u8; 64]),
}

/// A well-formed initdata. That it is well formed says nothing of where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initdata {
    text: String,
    algorithm: Algorithm,
    files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Document {
    version: String,
    algorithm: Algorithm,
    data: BTreeMap<String, String>,
}

impl Initdata {
    /// Checks a text. `from` is only for the message.
    ///
    /// # Errors
    /// [`BootError::Initdata`]: not that TOML, another version, an unknown algorithm, or a file whose name could lead
    /// out of a folder.
    pub fn parse(text: String, from: &Path) -> Result<Self, BootError> {
        let refused = |what: String| BootError::Initdata { device: from.to_owned(), what };
        if text.len() > MAX_TEXT {
            return Err(refused("the text is longer than 1 MiB".to_owned()));
        }
        // The parser's own message would quote what the host wrote.
        let document: Document = toml::from_str(&text).map_err(|error| {
            let place = error.span().map_or(0, |span| span.start);
            refused(format!("not initdata TOML (byte {place})"))
        })?;
        if document.version != VERSION {
            return Err(refused(format!("version `{}`, not {VERSION}", document.version.escape_debug())));
        }
        if document.data.len() > MAX_FILES {
            return Err(refused(format!("{} files, at most {MAX_FILES}", document.data.len())));
        }
        if let Some(name) = document.data.keys().find(|name| !plain(name)) {
            return Err(refused(format!("`{}` cannot be a file's name", name.escape_debug())));
        }
        Ok(Self { text, algorithm: document.algorithm, files: document.data })
    }

    /// The text, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The algorithm it names.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// One of its files.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// The names of its files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Digest of the text under its own algorithm: what the platform must bind.
    #[must_use]
    pub fn digest(&self) -> InitdataDigest {
        let bytes = self.text.as_bytes();
        match self.algorithm {
            Algorithm::Sha256 => InitdataDigest::Sha256(Sha256Digest::of(bytes)),
            Algorithm::Sha384 => InitdataDigest::Sha384(Sha384Digest::of(bytes)),
            Algorithm::Sha512 => InitdataDigest::Sha512(Sha512::digest(bytes).into()),
        }
    }
}

fn plain(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && name.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Initdata, BootError> {
        Initdata::parse(text.to_owned(), Path::new("test"))
    }

    #[test]
    fn the_digest_is_over_the_text_as_it_is_written() {
        let text =
            "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"policy.rego\" = '''\npackage agent_policy\n'''\n";
        let initdata = parse(text).unwrap();
        assert_eq!(initdata.file("policy.rego"), Some("package agent_policy\n"));
        assert_eq!(initdata.digest(), InitdataDigest::Sha384(Sha384Digest::of(text.as_bytes())));
        // The same content in other bytes is another initdata.
        let spaced = parse(&text.replace(" = \"sha384\"", "=\"sha384\"")).unwrap();
        assert_ne!(spaced.digest(), initdata.digest());
    }

    #[test]
    fn what_is_no_initdata_is_refused() {
        let whole = |version: &str, algorithm: &str, name: &str| {
            format!("version = \"{version}\"\nalgorithm = \"{algorithm}\"\n[data]\n\"{name}\" = \"x\"\n")
        };
        assert!(parse(&whole("0.1.0", "sha256", "aa.toml")).is_ok());
        for text in [
            String::new(),
            "version = \"0.1.0\"\nalgorithm = \"sha256\"\n".to_owned(),
            whole("0.2.0", "sha256", "aa.toml"),
            whole("0.1.0", "md5", "aa.toml"),
            whole("0.1.0", "sha256", "../aa.toml"),
            whole("0.1.0", "sha256", "a/b"),
            whole("0.1.0", "sha256", ".hidden"),
            whole("0.1.0", "sha256", ""),
            whole("0.1.0", "sha256", &"n".repeat(200)),
            "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"a\" = 1\n".to_owned(),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error.code(), protocols::reason::BOOT_INITDATA, "{text}");
            assert!(!error.to_string().contains("aa.toml\" ="), "quotes the host: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,400}") {
            let _ = parse(&text);
        }
    }
}
