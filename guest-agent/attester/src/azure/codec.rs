//! The vTPM by our own codec: no library of C, any device or socket.

use std::sync::Arc;

use protocols::azure::AzureQuote;
use protocols::hcl;
use protocols::tpm::{self, NvReader, RC_HANDLE, Signature, TpmError};

use super::{NV_REPORT, NV_USER_DATA, Vtpm, refused};
use crate::tpm::{Session, TransportError};
use crate::{AttesterError, TpmAttester};

#[derive(Debug)]
pub(super) struct Codec(pub(super) Arc<TpmAttester>);

impl Vtpm for Codec {
    fn report(&self) -> Result<Vec<u8>, AttesterError> {
        let read = |tpm: &mut Session| tpm.nv(NvReader::Owner, NV_REPORT, hcl::MAX_SIZE);
        self.0.transaction(read).map_err(|error| refused(format!("NV index {NV_REPORT:#x}: {error}")))
    }

    fn ask_for(&self, user_data: &[u8; hcl::USER_DATA_SIZE]) -> Result<(), AttesterError> {
        let written = self.0.transaction(|tpm| write_user_data(tpm, user_data));
        written.map_err(|error| refused(format!("NV index {NV_USER_DATA:#x}: {error}")))
    }

    /// As Azure's evidence has it: the signature without its TPMT_SIGNATURE.
    fn quote(&self, nonce: &[u8]) -> Result<AzureQuote, AttesterError> {
        let quote = self.0.quote(nonce)?.tpm_quote;
        match Signature::parse(&quote.signature) {
            Ok(Signature::Rsassa(signature)) => Ok(AzureQuote { signature, message: quote.message, pcrs: quote.pcrs }),
            _ => Err(refused("the vTPM's quote is not signed by RSASSA".to_owned())),
        }
    }
}

fn write_user_data(tpm: &mut Session, data: &[u8; hcl::USER_DATA_SIZE]) -> Result<(), TransportError> {
    let size = u16::try_from(data.len()).unwrap_or(u16::MAX);
    match tpm.run(&tpm::nv_read_public(NV_USER_DATA)) {
        Ok(public) if public.size == size => {}
        Ok(_) => return Err(TpmError::Value("size of the user data").into()),
        Err(TransportError::Tpm(TpmError::Code(RC_HANDLE))) => tpm.run(&tpm::nv_define(NV_USER_DATA, size))?,
        Err(error) => return Err(error),
    }
    tpm.run(&tpm::nv_write(NV_USER_DATA, data))
}
