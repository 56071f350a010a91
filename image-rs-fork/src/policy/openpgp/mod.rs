//! OpenPGP for `signedBy` (RFC 9580): public keys with their standing, and the signed messages of
//! containers-signature(5). Version 4 only, which is what GnuPG writes; nothing is decrypted, and nothing nests deeper
//! than a message in its compression and a signature in a signature.

mod certificate;
mod key;
mod message;
mod packet;
mod signature;
#[cfg(test)]
mod tests;

pub(super) use self::certificate::Certificate;
pub(super) use self::message::Message;
