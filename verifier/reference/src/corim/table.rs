//! Which class and key of a measurement is which of our names, both ways.

use crate::names;

/// A class of environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// `class-id` alone, a UUID.
    Uuid([u8; 16]),
    /// `vendor` and `model` alone.
    Model(String, String),
}

/// `mkey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Number(u32),
    Text(String),
}

/// The target environments of AMD's SEV-SNP, by chip and by provider (draft-deeglaze-amd-sev-snp-corim-profile).
const SNP_CLASSES: [[u8; 16]; 2] = [
    [0xD0, 0x5E, 0x6D, 0x1B, 0x9F, 0x46, 0x4A, 0xE2, 0xA6, 0x10, 0xCE, 0x3E, 0x6E, 0xE7, 0xE1, 0x53],
    [0x89, 0xA7, 0xA1, 0xF0, 0xE7, 0x04, 0x4F, 0xAA, 0xAC, 0xBD, 0x81, 0xC8, 0x6D, 0xF8, 0xA9, 0x61],
];
/// Of that class the guest's own measurements.
const SNP_KEY: u32 = 0;

/// (vendor, model, key, name), what has one key for each name.
const MODELS: [(&str, &str, &str, &str); 10] = [
    ("AMD", "SEV-SNP", "measurement", names::SNP),
    ("Microsoft", "Azure paravisor", "measurement", names::AZURE),
    ("Microsoft", "Azure paravisor on TDX", "mrtd", "azure.tdx.mrtd"),
    ("Microsoft", "Azure paravisor on TDX", "rtmr0", "azure.tdx.rtmr0"),
    ("Microsoft", "Azure paravisor on TDX", "rtmr1", "azure.tdx.rtmr1"),
    ("Microsoft", "Azure paravisor on TDX", "rtmr2", "azure.tdx.rtmr2"),
    ("Intel", "TDX", "mrtd", "tdx.mrtd"),
    ("Intel", "TDX", "rtmr0", "tdx.rtmr0"),
    ("Intel", "TDX", "rtmr1", "tdx.rtmr1"),
    ("Intel", "TDX", "rtmr2", "tdx.rtmr2"),
];
const TPM: (&str, &str) = ("TCG", "TPM 2.0");

/// The name of a measurement.
pub(super) fn name(class: &Class, key: &Key) -> Option<String> {
    match (class, key) {
        (Class::Uuid(id), Key::Number(SNP_KEY)) if SNP_CLASSES.contains(id) => Some(names::SNP.to_owned()),
        (Class::Model(vendor, model), Key::Number(pcr)) if (vendor.as_str(), model.as_str()) == TPM => {
            Some(names::pcr(*pcr)).filter(|name| names::size(name).is_some())
        }
        (Class::Model(vendor, model), Key::Text(key)) => MODELS
            .iter()
            .find(|(v, m, k, _)| v == vendor && m == model && k == key)
            .map(|(_, _, _, name)| (*name).to_owned()),
        _ => None,
    }
}

/// Where a name is written.
pub(super) fn place(name: &str) -> Option<(&'static str, &'static str, Key)> {
    if let Some((vendor, model, key, _)) = MODELS.iter().find(|(_, _, _, known)| *known == name) {
        return Some((vendor, model, Key::Text((*key).to_owned())));
    }
    let pcr = name.strip_prefix("tpm.pcr")?.parse().ok()?;
    Some((TPM.0, TPM.1, Key::Number(pcr)))
}

/// The algorithm of digests of this size, by the registry of named information hashes.
pub(super) const fn algorithm(size: usize) -> Option<(u32, &'static str)> {
    match size {
        32 => Some((1, "sha-256")),
        48 => Some((7, "sha-384")),
        _ => None,
    }
}
