//! A signed message as containers-signature(5) has it: one literal text and one signature, perhaps compressed.

use std::io::Read;

use flate2::bufread::{DeflateDecoder, ZlibDecoder};

use super::super::payload::MAX_PAYLOAD;
use super::packet::{COMPRESSED, Input, LITERAL, ONE_PASS, Packet, SIGNATURE, packets};
use super::signature::Signature;

/// The largest message, without its compression, in bytes: a payload and room for the signature.
const MAX_OPEN: u64 = MAX_PAYLOAD.saturating_mul(2);
/// One-pass signature, text and signature.
const PACKETS: usize = 3;

/// A message that can be checked.
#[derive(Debug)]
pub(in super::super) struct Message {
    pub(super) signature: Signature,
    pub(super) text: Vec<u8>,
    /// What was signed, where its hash is one that is taken: made once for however many keys are tried.
    pub(super) digest: Option<Vec<u8>>,
}

impl Message {
    /// Reads a binary message. Clear-signed and detached signatures, encryption, armour, nesting and a second
    /// signature are refused, as the format asks.
    pub(in super::super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let outer = packets(bytes, PACKETS)?;
        let [Packet { kind: COMPRESSED, body }] = outer.as_slice() else {
            if bytes.len() as u64 > MAX_OPEN {
                return Err(format!("a message larger than {MAX_OPEN} bytes"));
            }
            return Self::of(&outer);
        };
        let mut open = Vec::new();
        let rest = match body.split_first() {
            Some((1, deflated)) => inflate(DeflateDecoder::new(deflated), &mut open).map(DeflateDecoder::into_inner),
            Some((2, deflated)) => inflate(ZlibDecoder::new(deflated), &mut open).map(ZlibDecoder::into_inner),
            _ => return Err("a message compressed by another algorithm than ZIP and ZLIB".to_owned()),
        };
        let rest = rest.map_err(|e| format!("a compressed message that cannot be read: {e}"))?;
        if open.len() as u64 > MAX_OPEN {
            return Err(format!("a message larger than {MAX_OPEN} bytes"));
        }
        if !rest.is_empty() {
            return Err("something behind a compressed message".to_owned());
        }
        Self::of(&packets(&open, PACKETS)?)
    }

    fn of(packets: &[Packet<'_>]) -> Result<Self, String> {
        let problem = "not a signed message";
        let (literal, signature) = match packets {
            [Packet { kind: ONE_PASS, .. }, literal, signature] => (literal, signature),
            // The older order.
            [signature, literal] => (literal, signature),
            _ => return Err(problem.to_owned()),
        };
        if literal.kind != LITERAL || signature.kind != SIGNATURE {
            return Err(problem.to_owned());
        }
        let text = text(&literal.body).ok_or(problem)?;
        if text.len() as u64 > MAX_PAYLOAD {
            return Err(format!("a payload larger than {MAX_PAYLOAD} bytes"));
        }
        let signature = Signature::parse(&signature.body)?;
        let digest = signature.digest(&[text]);
        Ok(Self { signature, text: text.to_vec(), digest })
    }
}

/// Opens at most one byte more than is taken.
fn inflate<D: Read>(mut decoder: D, open: &mut Vec<u8>) -> std::io::Result<D> {
    decoder.by_ref().take(MAX_OPEN.saturating_add(1)).read_to_end(open)?;
    Ok(decoder)
}

/// What follows form, name and time, which nobody has signed.
fn text(literal: &[u8]) -> Option<&[u8]> {
    let mut input = Input(literal);
    input.byte()?;
    let length = usize::from(input.byte()?);
    input.take(length)?;
    input.long()?;
    Some(input.0)
}
