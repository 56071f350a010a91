//! The ARK's certificate revocation list (RFC 5280).
//!
//! An entry counts for any certificate of the chain with its serial number, whoever issued it: AMD's list is
//! signed by the ARK also for keys that an ASK or ASVK issued. More than was meant may be revoked, never less.

use protocols::time::Timestamp;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;

use crate::certificate::{Certificate, tbs};

/// Certificate issuer, the one critical extension that an entry may have: it is not looked at.
const CERTIFICATE_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.29");
/// The most bytes a list may have.
const MAX_SIZE: usize = 1024 * 1024;

/// A list whose signature by the ARK was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crl {
    /// Serial numbers, big-endian as DER has them.
    revoked: Vec<Vec<u8>>,
    this_update: u64,
    next_update: u64,
}

impl Crl {
    /// Reads one DER list of version 2 that `ark` signed.
    pub(super) fn parse(der: &[u8], ark: &Certificate) -> Result<Self, &'static str> {
        if der.len() > MAX_SIZE {
            return Err("a revocation list larger than 1 MiB");
        }
        let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der)
            .map_err(|_| "not a DER revocation list")?;
        let signed = tbs(der).map_err(|_| "not a DER revocation list")?;
        let inner = &list.tbs_cert_list;
        if list.signature_algorithm != inner.signature {
            return Err("two different signature algorithms");
        }
        if inner.issuer != *ark.subject() {
            return Err("not issued by the ARK");
        }
        let signature = list.signature.as_bytes().ok_or("a signature of odd length")?;
        ark.check_signed_list(signed, &list.signature_algorithm.oid, signature)?;
        // A delta, or a list of only some reasons or kinds of certificates, says so in a critical extension.
        if inner.crl_extensions.iter().flatten().any(|extension| extension.critical) {
            return Err("an unknown critical extension");
        }
        let entries = inner.revoked_certificates.as_deref().unwrap_or_default();
        let of_entries = entries.iter().filter_map(|entry| entry.crl_entry_extensions.as_ref()).flatten();
        if of_entries.into_iter().any(|e| e.critical && e.extn_id != CERTIFICATE_ISSUER) {
            return Err("an unknown critical extension of an entry");
        }
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        Ok(Self {
            revoked: entries.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect(),
            this_update: seconds(&inner.this_update),
            next_update: seconds(inner.next_update.as_ref().ok_or("no time of the next list")?),
        })
    }

    /// Checks that `now` is within the list's time, both ends included.
    pub(super) fn check_current(&self, now: Timestamp) -> Result<(), &'static str> {
        match now.0 {
            early if early < self.this_update => Err("a list that is not valid yet"),
            late if late > self.next_update => Err("an expired list"),
            _ => Ok(()),
        }
    }

    pub(super) fn names(&self, serial: &[u8]) -> bool {
        self.revoked.iter().any(|revoked| revoked == serial)
    }
}
