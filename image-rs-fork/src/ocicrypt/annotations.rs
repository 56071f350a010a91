//! What a descriptor says of its layer's encryption. Nothing here is secret, and nothing is believed.

use std::collections::BTreeMap;

use protocols::encoding::un_b64;
use registry::Descriptor;
use serde::Deserialize;

use super::Mac;

const SUFFIX: &str = "+encrypted";
pub(super) const PUBOPTS: &str = "org.opencontainers.image.enc.pubopts";
pub(super) const KEYS: &str = "org.opencontainers.image.enc.keys.";
/// The only cipher there is.
pub(super) const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";

/// The longest annotation, in bytes; a JWE for one recipient has about 1 KiB.
const MAX_ANNOTATION: usize = 64 * 1024;
/// The most wrapped keys of one layer.
const MAX_WRAPPED: usize = 32;

/// A layer's secret, wrapped for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// `jwe` or `provider.<name>`: what the annotation is called after `org.opencontainers.image.enc.keys.`.
    pub scheme: String,
    /// The packet of that scheme: a JWE, or whatever the provider writes.
    pub packet: Vec<u8>,
}

/// How a layer is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encryption {
    pub(super) wrapped: Vec<WrappedKey>,
    pub(super) mac: Mac,
}

#[derive(Deserialize)]
struct Public {
    cipher: String,
    hmac: String,
    #[serde(default)]
    cipheroptions: Option<BTreeMap<String, String>>,
}

/// The media type of the blob inside, where the layer is encrypted.
pub(crate) fn media_type(of: &str) -> Option<&str> {
    of.strip_suffix(SUFFIX)
}

impl Encryption {
    /// Reads the annotations of an encrypted layer.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub(crate) fn parse(layer: &Descriptor) -> Result<Self, String> {
        let public = layer.annotations.get(PUBOPTS).ok_or("no public cipher options")?;
        let mac = public_options(&packet(public)?)?;
        let mut wrapped = Vec::new();
        for (name, value) in &layer.annotations {
            let Some(scheme) = name.strip_prefix(KEYS) else { continue };
            if value.len() > MAX_ANNOTATION {
                return Err(format!("a {scheme} annotation of more than {MAX_ANNOTATION} bytes"));
            }
            for text in value.split(',').filter(|text| !text.is_empty()) {
                if wrapped.len() == MAX_WRAPPED {
                    return Err(format!("more than {MAX_WRAPPED} wrapped keys"));
                }
                wrapped.push(WrappedKey { scheme: scheme.to_owned(), packet: packet(text)? });
            }
        }
        if wrapped.is_empty() {
            return Err("no wrapped key".to_owned());
        }
        Ok(Self { wrapped, mac })
    }
}

fn packet(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > MAX_ANNOTATION {
        return Err(format!("an annotation of more than {MAX_ANNOTATION} bytes"));
    }
    un_b64(text).map_err(|e| format!("an annotation is {e}"))
}

/// The HMAC in the public options, which must name our cipher and nothing that the key's owner did not authenticate.
fn public_options(json: &[u8]) -> Result<Mac, String> {
    let public: Public = serde_json::from_slice(json).map_err(|e| format!("public cipher options: {e}"))?;
    if public.cipher != CIPHER {
        return Err(format!("an unknown cipher {:?}", public.cipher.chars().take(40).collect::<String>()));
    }
    if public.cipheroptions.is_some_and(|options| !options.is_empty()) {
        return Err("cipher options outside of the wrapped key".to_owned());
    }
    let mac = un_b64(&public.hmac).map_err(|e| format!("its HMAC is {e}"))?;
    mac.try_into().map_err(|mac: Vec<u8>| format!("an HMAC of {} bytes", mac.len()))
}

#[cfg(test)]
mod tests {
    use protocols::encoding::b64;

    use super::*;

    fn layer(public: &str, keys: &[(&str, &str)]) -> Descriptor {
        let mut layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar+encrypted", b"");
        layer.annotations.insert(PUBOPTS.to_owned(), b64(public.as_bytes()));
        for (scheme, value) in keys {
            layer.annotations.insert(format!("{KEYS}{scheme}"), (*value).to_owned());
        }
        layer
    }

    fn public(cipher: &str, hmac: &[u8], options: &str) -> String {
        format!(r#"{{"cipher":"{cipher}","hmac":"{}","cipheroptions":{options}}}"#, b64(hmac))
    }

    fn refused(layer: &Descriptor, words: &str) {
        let problem = Encryption::parse(layer).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }

    #[test]
    fn every_packet_of_every_scheme_is_read() {
        let good = public(CIPHER, &[7; 32], "{}");
        let found = Encryption::parse(&layer(&good, &[("jwe", "YQ==,Yg=="), ("provider.kbs", "Yw==")])).unwrap();
        let wrapped = |scheme: &str, packet: &[u8]| WrappedKey { scheme: scheme.to_owned(), packet: packet.to_vec() };
        assert_eq!(found.wrapped, [wrapped("jwe", b"a"), wrapped("jwe", b"b"), wrapped("provider.kbs", b"c")]);
        assert_eq!(found.mac, [7; 32]);
        // Go writes null for no options, others leave them out.
        for public in [public(CIPHER, &[7; 32], "null"), good.replace(",\"cipheroptions\":{}", "")] {
            assert_eq!(Encryption::parse(&layer(&public, &[("jwe", "YQ==")])).unwrap().mac, [7; 32]);
        }
    }

    #[test]
    fn what_cannot_be_decrypted_safely_is_refused() {
        let good = public(CIPHER, &[7; 32], "{}");
        let keys = [("jwe", "YQ==")];
        refused(&layer(&public("AES_256_CTR", &[7; 32], "{}"), &keys), "unknown cipher");
        refused(&layer(&public("", &[7; 32], "{}"), &keys), "unknown cipher");
        refused(&layer(&public(CIPHER, b"", "{}"), &keys), "HMAC of 0 bytes");
        refused(&layer(&public(CIPHER, &[7; 31], "{}"), &keys), "HMAC of 31 bytes");
        refused(&layer(&good.replace("hmac", "other"), &keys), "missing field");
        refused(&layer(&public(CIPHER, &[7; 32], r#"{"nonce":"AAAA"}"#), &keys), "outside of the wrapped key");
        refused(&layer("{", &keys), "public cipher options");
        refused(&layer(&good, &[]), "no wrapped key");
        refused(&layer(&good, &[("jwe", "")]), "no wrapped key");
        refused(&layer(&good, &[("jwe", "?")]), "base64");
        refused(&layer(&good, &[("jwe", &"A".repeat(MAX_ANNOTATION + 4))]), "more than 65536 bytes");
        refused(&layer(&good, &[("jwe", &vec!["YQ=="; MAX_WRAPPED + 1].join(","))]), "more than 32 wrapped keys");
        let mut bare = layer(&good, &keys);
        bare.annotations.insert(PUBOPTS.to_owned(), "A".repeat(MAX_ANNOTATION + 4));
        refused(&bare, "more than 65536 bytes");
        bare.annotations.remove(PUBOPTS);
        refused(&bare, "no public cipher options");
    }
}
