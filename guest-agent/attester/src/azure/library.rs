//! The vTPM by the TPM library, through `az-cvm-vtpm`: a second implementation of what [`super::codec`] does.

use std::fmt::Display;
use std::sync::Arc;

use az_cvm_vtpm::vtpm;
use protocols::azure::AzureQuote;
use protocols::digest::Sha256Digest;
use protocols::hcl;
use protocols::tpm::{Attest, pcr_digest};

use super::{Vtpm, is_key, refused};
use crate::{AttesterError, TpmAttester};

/// The library's default device, which the crate takes.
pub(super) const DEVICE: &str = "/dev/tpm0";
/// PCRs are read after they were quoted: where one has moved, both are done again.
const QUOTE_ATTEMPTS: usize = 8;

/// The device has room for one at a time: the library's commands queue with ours.
#[derive(Debug)]
pub(super) struct Library(Arc<TpmAttester>);

impl Library {
    pub(super) fn open(tpm: Arc<TpmAttester>) -> Result<Self, AttesterError> {
        let key = tpm.exclusively(vtpm::get_ak_pub).map_err(|error| told("attestation key", &error))?;
        if !is_key(&tpm, key.modulus().to_vec(), key.exponent()) {
            return Err(refused("the TPM library reads another attestation key".to_owned()));
        }
        Ok(Self(tpm))
    }
}

impl Vtpm for Library {
    fn report(&self) -> Result<Vec<u8>, AttesterError> {
        self.0.exclusively(vtpm::get_report).map_err(|error| told("the paravisor's report", &error))
    }

    fn ask_for(&self, user_data: &[u8; hcl::USER_DATA_SIZE]) -> Result<(), AttesterError> {
        let asked = self.0.exclusively(|| vtpm::get_report_with_report_data(user_data));
        // What it reads after its wait may be an old report: the caller looks until it is the new one.
        asked.map(drop).map_err(|error| told("user data", &error))
    }

    fn quote(&self, nonce: &[u8]) -> Result<AzureQuote, AttesterError> {
        for _ in 0..QUOTE_ATTEMPTS {
            let quote = self.0.exclusively(|| vtpm::get_quote(nonce)).map_err(|error| told("quote", &error))?;
            let pcrs: Vec<_> = quote.pcrs_sha256().map(|value| Sha256Digest::new(*value)).collect();
            let attest = Attest::parse(&quote.message()).map_err(|error| told("quote", &error))?;
            if attest.pcr_digest == pcr_digest(&pcrs).as_bytes() {
                let pcrs = pcrs.iter().map(Sha256Digest::hex).collect();
                return Ok(AzureQuote { signature: quote.signature(), message: quote.message(), pcrs });
            }
        }
        Err(refused("PCRs change faster than they can be quoted".to_owned()))
    }
}

fn told(what: &str, error: &dyn Display) -> AttesterError {
    refused(format!("{what}, by the TPM library: {error}"))
}
