//! AMD's side: the names of chips' certificates, and the Key Distribution Service's paths (publication 57230).

use std::fmt::Write as _;

use protocols::snp::{Generation, Report, SigningKey, TcbVersion};
use verifier::snp::Product;

use crate::EndorsementError;

/// From the processor's family and model, which reports of version 3 and later tell.
const fn of_cpuid(family: u8, model: u8) -> Option<Product> {
    match (family, model) {
        (0x19, 0x00..=0x0F) => Some(Product::Milan),
        (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(Product::Genoa),
        (0x1A, 0x00..=0x11) => Some(Product::Turin),
        _ => None,
    }
}

/// Which VEK signed a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VekName {
    /// The product whose root stands above it.
    pub product: Product,
    kind: SigningKey,
    hardware_id: Vec<u8>,
    tcb: TcbVersion,
}

impl VekName {
    /// The key that a report says it was signed with. Version 2 names no product: `product` does then, and is not
    /// looked at otherwise.
    ///
    /// # Errors
    /// [`EndorsementError::Unnamed`].
    pub fn of(report: &Report, product: Option<Product>) -> Result<Self, EndorsementError> {
        let fields = report.fields();
        let kind = fields.signing_key().ok_or(EndorsementError::Unnamed("the report is signed by no VCEK or VLEK"))?;
        let told = match (fields.cpuid_fam_id, fields.cpuid_mod_id) {
            (Some(family), Some(model)) => of_cpuid(family, model),
            _ => product,
        };
        let product =
            told.ok_or(EndorsementError::Unnamed("the report does not tell its product, or an unknown one"))?;
        let hardware_id = match (kind, Generation::of_chip_id(&fields.chip_id)) {
            (SigningKey::Vlek, _) => Vec::new(),
            (SigningKey::Vcek, None) => return Err(EndorsementError::Unnamed("the chip's id is masked")),
            (SigningKey::Vcek, Some(_)) if product == Product::Turin => {
                fields.chip_id.iter().copied().take(8).collect()
            }
            (SigningKey::Vcek, Some(_)) => fields.chip_id.to_vec(),
        };
        Ok(Self { product, kind, hardware_id, tcb: fields.reported_tcb })
    }

    /// Where the service has it; a VLEK's it gives to its provider alone.
    ///
    /// # Errors
    /// [`EndorsementError::Unnamed`] for a VLEK.
    pub fn path(&self) -> Result<String, EndorsementError> {
        if self.kind == SigningKey::Vlek {
            return Err(EndorsementError::Unnamed("a VLEK's certificate comes from its provider"));
        }
        let TcbVersion { fmc, bootloader, tee, snp, microcode } = self.tcb;
        let mut path = format!("vcek/v1/{}/{}?", self.product.as_str(), hex::encode(&self.hardware_id));
        if let Some(fmc) = fmc {
            // Writing to a string cannot fail.
            let _ = write!(path, "fmcSPL={fmc:02}&");
        }
        let _ = write!(path, "blSPL={bootloader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}");
        Ok(path)
    }

    /// Its file's name in a directory.
    #[must_use]
    pub fn file(&self) -> String {
        let TcbVersion { fmc, bootloader, tee, snp, microcode } = self.tcb;
        let mut name = format!("{}-{}-", self.kind.as_str(), self.product.as_str()).to_lowercase();
        name.push_str(&hex::encode(&self.hardware_id));
        let _ = write!(name, "-{bootloader}-{tee}-{snp}-{microcode}");
        if let Some(fmc) = fmc {
            let _ = write!(name, "-{fmc}");
        }
        name + ".der"
    }

    /// Where the service has the product's revocation list, DER.
    pub(crate) fn crl_path(&self) -> String {
        format!("vcek/v1/{}/crl", self.product.as_str())
    }

    /// The name of the product's revocation list in a directory.
    #[must_use]
    pub fn crl_file(&self) -> String {
        format!("{}-crl.der", self.product.as_str().to_lowercase())
    }
}
