//! Administrators by client certificate: a chain to the rule's own roots, and the name it lists.

use std::time::Duration;

use protocols::time::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::Role;

/// Whose certificate it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// The whole subject, as RFC 4514 writes it.
    Subject(String),
    /// A DNS name among the subject's alternative names.
    Dns(String),
    /// A URI among them.
    Uri(String),
    /// An address of mail among them.
    Email(String),
}

/// One `[[admin.certificate]]`.
#[derive(Debug)]
pub(crate) struct CertificateRule {
    name: String,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    named: Named,
    roles: Vec<Role>,
}

impl CertificateRule {
    /// A rule of these parts; the text says what is wrong with a root.
    pub(crate) fn new(
        name: String,
        roots: Vec<CertificateDer<'static>>,
        named: Named,
        roles: Vec<Role>,
    ) -> Result<Self, String> {
        let anchors = roots.iter().map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()));
        let anchors: Vec<_> = anchors.collect::<Result<_, _>>().map_err(|error| format!("a root: {error}"))?;
        if anchors.is_empty() {
            return Err("no certificate in the file of roots".to_owned());
        }
        Ok(Self { name, roots, anchors, named, roles })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn roles(&self) -> &[Role] {
        &self.roles
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter()
    }

    /// Whether a chain leads to this rule's roots now and its first certificate has the name. That somebody has its key
    /// was shown in the handshake.
    pub(super) fn matches(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> bool {
        let Some((own, intermediates)) = chain.split_first() else { return false };
        self.vouched(own, intermediates, now) && self.names(own)
    }

    fn vouched(&self, own: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: Timestamp) -> bool {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        let usage = KeyUsage::client_auth();
        EndEntityCert::try_from(own).is_ok_and(|own| {
            own.verify_for_usage(ALL_VERIFICATION_ALGS, &self.anchors, intermediates, time, usage, None, None).is_ok()
        })
    }

    fn names(&self, own: &CertificateDer<'_>) -> bool {
        let Ok(own) = Certificate::from_der(own) else { return false };
        let own = own.tbs_certificate();
        if let Named::Subject(subject) = &self.named {
            return own.subject().to_string() == *subject;
        }
        let Ok(Some((_, SubjectAltName(names)))) = own.get_extension::<SubjectAltName>() else { return false };
        names.iter().any(|name| match (name, &self.named) {
            (GeneralName::DnsName(name), Named::Dns(listed)) => name.as_str().eq_ignore_ascii_case(listed),
            (GeneralName::UniformResourceIdentifier(name), Named::Uri(listed)) => name.as_str() == listed,
            (GeneralName::Rfc822Name(name), Named::Email(listed)) => name.as_str() == listed,
            _ => false,
        })
    }
}
