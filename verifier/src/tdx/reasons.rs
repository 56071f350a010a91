//! What a refusal of the quote library means. Its release is pinned: the texts below are its own, and a test has
//! one quote for each. A text that is not known here is still a refusal.

use protocols::reason::{self, Code};

/// Texts in order: the first that is part of the message decides.
const TEXTS: &[(&str, Code)] = &[
    ("Signature is invalid for tcb_info", reason::EVIDENCE_COLLATERAL),
    ("Signature is invalid for qe_identity", reason::EVIDENCE_COLLATERAL),
    ("Failed to decode TcbInfo", reason::EVIDENCE_COLLATERAL),
    ("Failed to decode QeIdentity", reason::EVIDENCE_COLLATERAL),
    ("TCBInfo", reason::EVIDENCE_COLLATERAL),
    ("QE Identity expired", reason::EVIDENCE_COLLATERAL),
    ("QE Identity issue date", reason::EVIDENCE_COLLATERAL),
    ("QE Identity signer", reason::EVIDENCE_COLLATERAL),
    ("TCB Info signer", reason::EVIDENCE_COLLATERAL),
    ("Unsupported QE Identity", reason::EVIDENCE_COLLATERAL),
    ("non-TDX TCB info", reason::EVIDENCE_COLLATERAL),
    ("Unrecognized TCB status", reason::EVIDENCE_COLLATERAL),
    ("component count mismatch", reason::EVIDENCE_COLLATERAL),
    ("Fmspc mismatch", reason::EVIDENCE_COLLATERAL),
    ("Crl", reason::EVIDENCE_COLLATERAL),
    ("CRL", reason::EVIDENCE_COLLATERAL),
    ("UnknownRevocationStatus", reason::EVIDENCE_COLLATERAL),
    ("CertRevoked", reason::EVIDENCE_REVOKED),
    ("Signature is invalid for qe_report", reason::EVIDENCE_SIGNATURE),
    ("QE report hash mismatch", reason::EVIDENCE_SIGNATURE),
    ("ISV enclave report signature", reason::EVIDENCE_SIGNATURE),
    ("QE ISVSVN", reason::EVIDENCE_TCB),
    ("No matching TCB level", reason::EVIDENCE_TCB),
    ("TCB status is invalid", reason::EVIDENCE_TCB),
    ("TDX module", reason::EVIDENCE_TCB),
    // Another enclave than Intel's quoting enclave: its key leads to no quote of Intel's.
    ("QE ", reason::EVIDENCE_CHAIN),
];

/// The code of a message. What is left over is about certificates.
pub(super) fn code_of(message: &str) -> Code {
    TEXTS.iter().find(|(text, _)| message.contains(text)).map_or(reason::EVIDENCE_CHAIN, |(_, code)| *code)
}
