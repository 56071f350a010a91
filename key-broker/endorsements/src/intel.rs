//! Intel's side: which collateral a quote needs, and how a caching service (PCCS, version 4) hands it out: one answer
//! for each part, with the part's signing chain in a header.

use protocols::tdx::Quote;
use serde_json::value::RawValue;

use crate::EndorsementError;

/// Who issued a PCK certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PckAuthority {
    /// "Intel SGX PCK Processor CA".
    Processor,
    /// "Intel SGX PCK Platform CA".
    Platform,
}

/// A kind of platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformName {
    /// FMSPC.
    pub fmspc: [u8; 6],
    /// Whose revocation list counts.
    pub authority: PckAuthority,
}

impl PlatformName {
    /// The kind of platform that a quote says it is from.
    ///
    /// # Errors
    /// [`EndorsementError::Unnamed`].
    pub fn of(quote: &Quote) -> Result<Self, EndorsementError> {
        let pck = quote.signature.pck_chain.pck();
        let fmspc = verifier::tdx::fmspc(pck).ok_or(EndorsementError::Unnamed("no PCK certificate in the quote"))?;
        let platform = pck.windows(PLATFORM.len()).any(|window| window == PLATFORM);
        Ok(Self { fmspc, authority: if platform { PckAuthority::Platform } else { PckAuthority::Processor } })
    }

    /// Its file's name in a directory.
    #[must_use]
    pub fn file(&self) -> String {
        let authority = match self.authority {
            PckAuthority::Processor => "processor",
            PckAuthority::Platform => "platform",
        };
        format!("tdx-{}-{authority}.json", hex::encode(self.fmspc))
    }

    /// Where the service has each part.
    pub(crate) fn paths(&self) -> [&'static str; 3] {
        let list = match self.authority {
            PckAuthority::Processor => "sgx/certification/v4/pckcrl?ca=processor&encoding=der",
            PckAuthority::Platform => "sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        };
        [list, "sgx/certification/v4/rootcacrl", "tdx/certification/v4/qe/identity"]
    }

    /// Where it has the TCB info.
    pub(crate) fn tcb_path(&self) -> String {
        format!("tdx/certification/v4/tcb?fmspc={}", hex::encode(self.fmspc))
    }
}

/// What the issuer's name of such a certificate holds.
const PLATFORM: &[u8] = b"PCK Platform CA";
/// Headers with the chains, as PEM in percent encoding.
pub(crate) const PCK_CRL_CHAIN: &str = "sgx-pck-crl-issuer-chain";
pub(crate) const TCB_CHAIN: &str = "tcb-info-issuer-chain";
pub(crate) const QE_CHAIN: &str = "sgx-enclave-identity-issuer-chain";

/// A text as it was signed, with its signature in hex: `{"NAME":TEXT,"signature":"HEX"}`.
///
/// # Errors
/// What is missing or of another form.
pub fn signed(body: &[u8], name: &str) -> Result<(String, String), String> {
    let mut members: std::collections::BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut take = |name: &str| members.remove(name).ok_or_else(|| format!("no {name}"));
    let text = take(name)?.get().to_owned();
    let signature: String = serde_json::from_str(take("signature")?.get()).map_err(|error| error.to_string())?;
    Ok((text, signature))
}

/// A revocation list in hex: services give DER, or its hex as text.
#[must_use]
pub fn list(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).ok().map(str::trim);
    match text {
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => text.to_owned(),
        _ => hex::encode(body),
    }
}

/// Undoes percent encoding; `None` where it is none.
#[must_use]
pub fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut decoded = [0];
                hex::decode_to_slice([bytes.next()?, bytes.next()?], &mut decoded).ok()?;
                out.extend(decoded);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_texts_are_kept_byte_for_byte() {
        let body = br#"{"tcbInfo":{"b":1, "a":"\u0041"},"signature":"00ff"}"#;
        let expected = (r#"{"b":1, "a":"\u0041"}"#.to_owned(), "00ff".to_owned());
        assert_eq!(signed(body, "tcbInfo").unwrap(), expected);
        for wrong in [&b"{}"[..], b"[]", br#"{"tcbInfo":{}}"#, br#"{"tcbInfo":{},"signature":1}"#, b"\xff"] {
            signed(wrong, "tcbInfo").unwrap_err();
        }
    }

    #[test]
    fn headers_are_percent_encoded() {
        assert_eq!(decoded("-----BEGIN%20X-----%0AMII%2B%0a").unwrap(), "-----BEGIN X-----\nMII+\n");
        for wrong in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lists_are_der_or_hex() {
        assert_eq!((list(b"3000\n"), list(&[0x30, 0])), ("3000".to_owned(), "3000".to_owned()));
    }
}
