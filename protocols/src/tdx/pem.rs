//! The certificates inside a quote.

use super::TdxError;
use crate::encoding;

/// PCK, intermediate, root; dcap libraries take up to two more.
pub const MAX_CERTIFICATES: usize = 5;
/// The longest chain, in bytes of PEM.
pub const MAX_CHAIN: usize = 32 * 1024;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "-----END CERTIFICATE-----\n";
const LINE: usize = 64;

/// A PEM chain of 1 to [`MAX_CERTIFICATES`] certificates in the one form Intel's libraries write: text and
/// certificates determine each other, so that no byte of it can be changed unseen.
#[derive(Clone, PartialEq, Eq)]
pub struct PckChain {
    certificates: Vec<Vec<u8>>,
    terminated: bool,
}

impl PckChain {
    /// A chain of these certificates (DER, PCK first), with a zero byte behind the text where `terminated`.
    ///
    /// # Errors
    /// [`TdxError::Chain`] for none or more than [`MAX_CERTIFICATES`], or more than [`MAX_CHAIN`] bytes of text.
    pub fn new(certificates: Vec<Vec<u8>>, terminated: bool) -> Result<Self, TdxError> {
        let chain = Self { certificates, terminated };
        let count = chain.certificates.len();
        if count == 0 || count > MAX_CERTIFICATES || chain.encode().len() > MAX_CHAIN {
            return Err(TdxError::Chain);
        }
        Ok(chain)
    }

    /// Reads a chain.
    ///
    /// # Errors
    /// [`TdxError::Chain`] unless every byte is what [`PckChain::encode`] writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, TdxError> {
        if bytes.len() > MAX_CHAIN {
            return Err(TdxError::Chain);
        }
        let (text, terminated) = match bytes.split_last() {
            Some((0, text)) => (text, true),
            _ => (bytes, false),
        };
        let mut rest = std::str::from_utf8(text).map_err(|_| TdxError::Chain)?;
        let mut certificates = Vec::new();
        while !rest.is_empty() && certificates.len() < MAX_CERTIFICATES {
            let (body, after) =
                rest.strip_prefix(BEGIN).and_then(|body| body.split_once(END)).ok_or(TdxError::Chain)?;
            let body: String = body.split('\n').collect();
            certificates.push(encoding::un_b64(&body).map_err(|_| TdxError::Chain)?);
            rest = after;
        }
        let chain = Self::new(certificates, terminated)?;
        if chain.encode() == bytes { Ok(chain) } else { Err(TdxError::Chain) }
    }

    /// The PEM text, and the zero byte where there is one.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for certificate in &self.certificates {
            out.extend_from_slice(BEGIN.as_bytes());
            for line in encoding::b64(certificate).as_bytes().chunks(LINE) {
                out.extend_from_slice(line);
                out.push(b'\n');
            }
            out.extend_from_slice(END.as_bytes());
        }
        if self.terminated {
            out.push(0);
        }
        out
    }

    /// DER of the PCK certificate.
    #[must_use]
    pub fn pck(&self) -> &[u8] {
        self.certificates.first().map_or(&[], Vec::as_slice)
    }

    /// DER of the last certificate: the root, or what comes nearest to it.
    #[must_use]
    pub fn last(&self) -> &[u8] {
        self.certificates.last().map_or(&[], Vec::as_slice)
    }

    /// All certificates, PCK first.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }
}

impl std::fmt::Debug for PckChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PckChain({} certificates)", self.certificates.len())
    }
}
