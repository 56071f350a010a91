//! Evidence of Azure's confidential VMs (`az-snp-vtpm`, `az-tdx-vtpm`) as attesters send it, in its three forms.
//!
//! | version | quote | HCL report | hardware |
//! |---|---|---|---|
//! | 0, not named | `quote`: arrays of numbers | `report`: array of numbers | `vcek`: PEM |
//! | 1, 2 | `tpm_quote`: hex | `hcl_report`: padded base64url | `vcek` or `td_quote`: padded base64url |
//!
//! From version 2 the VM's user data, and with it the hardware report, is made for the nonce of the quote.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encoding::{b64url, b64url_padded, un_b64, un_b64url, un_b64url_padded};
use crate::tdx::{LOCAL_REPORT_SIZE, trim};

/// JSON that is not evidence of an Azure VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AzureError {
    /// Not the form of any version.
    #[error("not the JSON of version {0}")]
    Form(u32),
    /// Another version.
    #[error("version {0} is not known")]
    Version(u32),
    /// Not what the instance metadata service answers.
    #[error("the answer of the instance metadata service: {0}")]
    Service(&'static str),
}

/// A quote of the VM's vTPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureQuote {
    /// RSASSA (PKCS #1 v1.5) with SHA-256 over the message, bare.
    pub signature: Vec<u8>,
    /// TPMS_ATTEST.
    pub message: Vec<u8>,
    /// SHA-256 PCRs 0 to 23, hex, in order.
    pub pcrs: Vec<String>,
}

/// Evidence of `tee = "az-snp-vtpm"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureSnpEvidence {
    /// 0 to 2.
    pub version: u32,
    /// The vTPM's quote.
    pub quote: AzureQuote,
    /// See [`crate::hcl::HclReport`].
    pub hcl_report: Vec<u8>,
    /// The VCEK's certificate, DER.
    pub vcek: Vec<u8>,
}

/// Evidence of `tee = "az-tdx-vtpm"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureTdxEvidence {
    /// 1 or 2.
    pub version: u32,
    /// The vTPM's quote.
    pub quote: AzureQuote,
    /// See [`crate::hcl::HclReport`].
    pub hcl_report: Vec<u8>,
    /// The TD quote.
    pub td_quote: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HexQuote {
    #[serde(with = "hex::serde")]
    signature: Vec<u8>,
    #[serde(with = "hex::serde")]
    message: Vec<u8>,
    pcrs: Vec<String>,
}

impl From<HexQuote> for AzureQuote {
    fn from(HexQuote { signature, message, pcrs }: HexQuote) -> Self {
        Self { signature, message, pcrs }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newer {
    version: u32,
    tpm_quote: HexQuote,
    hcl_report: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vcek: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    td_quote: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Oldest {
    quote: OldestQuote,
    report: Vec<u8>,
    vcek: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldestQuote {
    signature: Vec<u8>,
    message: Vec<u8>,
    pcrs: Vec<[u8; 32]>,
}

fn newer(value: &Value) -> Result<Newer, AzureError> {
    let version = value.get("version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok());
    let version = version.ok_or(AzureError::Form(2))?;
    if !matches!(version, 1 | 2) {
        return Err(AzureError::Version(version));
    }
    Newer::deserialize(value).map_err(|_| AzureError::Form(version))
}

/// The first certificate of a PEM text.
fn pem(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    un_b64(&body.split_ascii_whitespace().collect::<String>()).ok()
}

/// The largest answer of the instance metadata service that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

#[derive(Deserialize)]
struct Certification {
    #[serde(rename = "vcekCert")]
    vcek: String,
}

/// The VCEK's certificate, DER, of the instance metadata service's answer to `GET /metadata/THIM/amd/certification`:
/// JSON whose `vcekCert` is PEM. The chain that it brings too is not used: roots are the verifier's.
///
/// # Errors
/// [`AzureError::Service`].
pub fn read_certification(answer: &[u8]) -> Result<Vec<u8>, AzureError> {
    if answer.len() > MAX_ANSWER {
        return Err(AzureError::Service("too large"));
    }
    let answer: Certification =
        serde_json::from_slice(answer).map_err(|_| AzureError::Service("not JSON with a vcekCert"))?;
    pem(&answer.vcek).ok_or(AzureError::Service("vcekCert is not a certificate in PEM"))
}

/// What is sent to the instance metadata service with `POST /acc/tdquote`: JSON whose `report` is the TD report that the
/// paravisor shows, base64url.
#[must_use]
pub fn td_quote_request(report: &[u8; LOCAL_REPORT_SIZE]) -> Vec<u8> {
    serde_json::json!({ "report": b64url(report) }).to_string().into_bytes()
}

#[derive(Deserialize)]
struct TdQuote {
    quote: String,
}

/// The TD quote of the service's answer to [`td_quote_request`]: JSON whose `quote` is base64url, padded or not. Zero
/// bytes behind the quote are cut: hosts hand out whole pages.
///
/// # Errors
/// [`AzureError::Service`].
pub fn read_td_quote(answer: &[u8]) -> Result<Vec<u8>, AzureError> {
    if answer.len() > MAX_ANSWER {
        return Err(AzureError::Service("too large"));
    }
    let TdQuote { quote } = serde_json::from_slice(answer).map_err(|_| AzureError::Service("not JSON with a quote"))?;
    let padding = quote.len() - quote.trim_end_matches('=').len();
    let read = if padding == 0 { un_b64url(&quote) } else { un_b64url_padded(&quote) };
    let buffer = read.map_err(|_| AzureError::Service("quote is not base64url"))?;
    Ok(trim(&buffer).map_err(|_| AzureError::Service("quote is not a TD quote"))?.to_vec())
}

impl AzureSnpEvidence {
    /// Reads any of the three versions.
    ///
    /// # Errors
    /// [`AzureError`].
    pub fn from_json(value: &Value) -> Result<Self, AzureError> {
        if value.get("version").is_none() {
            let old = Oldest::deserialize(value).map_err(|_| AzureError::Form(0))?;
            let OldestQuote { signature, message, pcrs } = old.quote;
            let quote = AzureQuote { signature, message, pcrs: pcrs.iter().map(hex::encode).collect() };
            let vcek = pem(&old.vcek).ok_or(AzureError::Form(0))?;
            return Ok(Self { version: 0, quote, hcl_report: old.report, vcek });
        }
        let new = newer(value)?;
        let form = AzureError::Form(new.version);
        let (Some(vcek), None) = (new.vcek, new.td_quote) else { return Err(form) };
        let read = |text: &str| un_b64url_padded(text).map_err(|_| form.clone());
        let vcek = pem(&vcek).map_or_else(|| read(&vcek), Ok)?;
        Ok(Self { version: new.version, quote: new.tpm_quote.into(), hcl_report: read(&new.hcl_report)?, vcek })
    }

    /// The JSON of version 1 or 2.
    #[must_use]
    pub fn to_json(&self) -> Value {
        to_json(self.version, &self.quote, &self.hcl_report, Some(&self.vcek), None)
    }
}

impl AzureTdxEvidence {
    /// Reads version 1 or 2.
    ///
    /// # Errors
    /// [`AzureError`].
    pub fn from_json(value: &Value) -> Result<Self, AzureError> {
        let new = newer(value)?;
        let form = AzureError::Form(new.version);
        let (None, Some(td_quote)) = (new.vcek, new.td_quote) else { return Err(form) };
        let read = |text: &str| un_b64url_padded(text).map_err(|_| form.clone());
        let (hcl_report, td_quote) = (read(&new.hcl_report)?, read(&td_quote)?);
        Ok(Self { version: new.version, quote: new.tpm_quote.into(), hcl_report, td_quote })
    }

    /// The JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        to_json(self.version, &self.quote, &self.hcl_report, None, Some(&self.td_quote))
    }
}

fn to_json(version: u32, quote: &AzureQuote, hcl: &[u8], vcek: Option<&[u8]>, td_quote: Option<&[u8]>) -> Value {
    let AzureQuote { signature, message, pcrs } = quote.clone();
    let newer = Newer {
        version,
        tpm_quote: HexQuote { signature, message, pcrs },
        hcl_report: b64url_padded(hcl),
        vcek: vcek.map(b64url_padded),
        td_quote: td_quote.map(b64url_padded),
    };
    serde_json::to_value(newer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = include_str!("../../tests/data/vectors/az-snp-vtpm/evidence-v0.json");
    const V2: &str = include_str!("../../tests/data/vectors/az-snp-vtpm/evidence-v2.json");
    const TDX: &str = include_str!("../../tests/data/vectors/az-tdx-vtpm/evidence-v1.json");

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_version_is_read_and_the_newer_are_written_the_same() {
        let v0 = AzureSnpEvidence::from_json(&value(V0)).unwrap();
        assert_eq!((v0.version, v0.quote.pcrs.len(), v0.quote.signature.len()), (0, 24, 256));
        let v2 = AzureSnpEvidence::from_json(&value(V2)).unwrap();
        assert_eq!(v2.to_json(), value(V2));
        let tdx = AzureTdxEvidence::from_json(&value(TDX)).unwrap();
        assert_eq!((tdx.version, tdx.td_quote.len()), (1, 5006));
        assert_eq!(tdx.to_json(), value(TDX));
    }

    #[test]
    fn a_certification_is_json_with_one_certificate_in_pem() {
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        let answer = serde_json::json!({"vcekCert": pem, "tcbm": "00", "certificateChain": "", "cacheControl": "1"});
        assert_eq!(read_certification(answer.to_string().as_bytes()).unwrap(), [1, 2, 3]);
        for text in ["", "{}", "[]", r#"{"vcekCert":1}"#, r#"{"vcekCert":"AQID"}"#] {
            assert!(matches!(read_certification(text.as_bytes()), Err(AzureError::Service(_))), "{text}");
        }
        let padded = format!("{answer}{}", " ".repeat(MAX_ANSWER));
        assert_eq!(read_certification(padded.as_bytes()), Err(AzureError::Service("too large")));
    }

    #[test]
    fn a_td_quote_is_asked_for_and_cut_where_it_ends() {
        let request: Value = serde_json::from_slice(&td_quote_request(&[7; LOCAL_REPORT_SIZE])).unwrap();
        assert_eq!(un_b64url(request["report"].as_str().unwrap()).unwrap(), [7; LOCAL_REPORT_SIZE]);

        let padded = AzureTdxEvidence::from_json(&value(TDX)).unwrap().td_quote;
        let quote = trim(&padded).unwrap();
        assert!(quote.len() < padded.len(), "the published one has zero bytes behind it");
        for text in [b64url(&padded), b64url_padded(&padded), b64url(quote)] {
            let answer = serde_json::json!({ "quote": text }).to_string();
            assert_eq!(read_td_quote(answer.as_bytes()).unwrap(), quote);
        }
        let cut = serde_json::json!({ "quote": b64url(&quote[..2000]) }).to_string();
        for text in ["", "{}", "[]", r#"{"quote":1}"#, r#"{"quote":"A+I"}"#, r#"{"quote":"AQI=="}"#, &cut] {
            assert!(matches!(read_td_quote(text.as_bytes()), Err(AzureError::Service(_))), "{text}");
        }
        let long = format!("{cut}{}", " ".repeat(MAX_ANSWER));
        assert_eq!(read_td_quote(long.as_bytes()), Err(AzureError::Service("too large")));
    }

    #[test]
    fn other_forms_are_refused() {
        let changed = |change: fn(&mut Value)| {
            let mut value = value(V2);
            change(&mut value);
            AzureSnpEvidence::from_json(&value).unwrap_err()
        };
        assert_eq!(changed(|v| v["version"] = 3.into()), AzureError::Version(3));
        assert_eq!(changed(|v| v["version"] = "2".into()), AzureError::Form(2));
        assert_eq!(changed(|v| v["more"] = 1.into()), AzureError::Form(2));
        assert_eq!(changed(|v| v["td_quote"] = "".into()), AzureError::Form(2));
        assert_eq!(changed(|v| v["hcl_report"] = "AA".into()), AzureError::Form(2), "base64url without its padding");
        assert_eq!(changed(|v| v["tpm_quote"]["message"] = "0".into()), AzureError::Form(2));
        assert_eq!(changed(|v| drop(v.as_object_mut().unwrap().remove("vcek"))), AzureError::Form(2));
        assert_eq!(changed(|v| drop(v.as_object_mut().unwrap().remove("version"))), AzureError::Form(0));
        AzureTdxEvidence::from_json(&value(V2)).unwrap_err();
        AzureSnpEvidence::from_json(&value(TDX)).unwrap_err();
        AzureTdxEvidence::from_json(&value(V0)).unwrap_err();
    }
}
