//! The little of TPM 2.0 that is needed (TCG TPM 2.0 Library, part 2 structures, part 3 commands):
//! commands to extend and quote, and strict readers of what a TPM answers. No I/O.
//!
//! Integers are big-endian. A `TPM2B` is a u16 size and that many bytes.

mod attest;
mod command;
mod endorsement;
mod nv;
mod public;

pub use attest::{Attest, ClockInfo, PcrSelection, Signature};
pub use command::{
    Command, PcrValues, Primary, QuoteAnswer, answer_size, create_primary_ak, flush_context, pcr_extend, pcr_read,
    quote, read_clock, transient_handles,
};
pub use endorsement::{
    EkKind, activate_credential, create_primary_ek, policy_secret_endorsement, start_policy_session,
};
pub use nv::{NV_CHUNK, NvPublic, NvReader, nv_define, nv_read, nv_read_public, nv_write, read_public};
pub use public::{Public, object_name};

use crate::digest::Sha256Digest;

/// TPM_ALG_SHA256.
pub const ALG_SHA256: u16 = 0x000B;
/// Number of PCRs we read and quote: SHA-256 bank, 0 to 23.
pub const PCR_COUNT: usize = 24;
/// The PCR that a guest measures its initdata into, before anything of it counts.
pub const INITDATA_PCR: u32 = 8;
/// Bitmap of PCRs 0 to 23, as `pcrSelect` carries it.
pub const ALL_PCRS: [u8; 3] = [0xFF; 3];
/// TPM_RC_RETRY: the command was not started; send it again.
pub const RC_RETRY: u32 = 0x922;
/// TPM_RC_YIELDED: the command was suspended; send it again.
pub const RC_YIELDED: u32 = 0x908;
/// TPM_RC_TESTING: a self test is running; send it again.
pub const RC_TESTING: u32 = 0x90A;
/// TPM_RC_OBJECT_MEMORY: no slot for a transient object is free.
pub const RC_OBJECT_MEMORY: u32 = 0x902;

/// TPM_RC_HANDLE for the first handle: there is no such NV index or key.
pub const RC_HANDLE: u32 = 0x18B;

/// Why bytes are not what a TPM should have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// The structure ends early.
    #[error("{0}: cut short")]
    Short(&'static str),
    /// Bytes are left after the structure.
    #[error("{0}: bytes are left after it")]
    Trailing(&'static str),
    /// A field has a value that is not allowed there.
    #[error("{0}: unexpected value")]
    Value(&'static str),
    /// The TPM answered with this response code.
    #[error("the TPM answered with code {0:#x}")]
    Code(u32),
}

impl TpmError {
    /// Whether the same command may succeed when it is sent again.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Code(RC_RETRY | RC_YIELDED | RC_TESTING))
    }
}

/// The digest a quote over `pcrs` carries: SHA-256 of their concatenation in order.
#[must_use]
pub fn pcr_digest(pcrs: &[Sha256Digest]) -> Sha256Digest {
    let parts: Vec<&[u8]> = pcrs.iter().map(|pcr| pcr.as_bytes().as_slice()).collect();
    Sha256Digest::of_parts(&parts)
}

/// What [`INITDATA_PCR`] holds when this initdata was measured into it, and nothing else.
#[must_use]
pub fn initdata_pcr(digest: &Sha256Digest) -> Sha256Digest {
    Sha256Digest::of_parts(&[&[0; 32], digest.as_bytes()])
}

/// Reads big-endian structures; `what` names the structure in errors.
#[derive(Debug, Clone, Copy)]
struct Reader<'b> {
    rest: &'b [u8],
    what: &'static str,
}

impl<'b> Reader<'b> {
    const fn new(rest: &'b [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], TpmError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(TpmError::Short(self.what))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(TpmError::Short(self.what))?;
        self.rest = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, TpmError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, TpmError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, TpmError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, TpmError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B of at most `most` bytes.
    fn sized(&mut self, most: usize) -> Result<&'b [u8], TpmError> {
        let size = usize::from(self.u16()?);
        if size > most {
            return Err(TpmError::Value(self.what));
        }
        self.take(size)
    }

    fn expect_u16(&mut self, value: u16) -> Result<(), TpmError> {
        if self.u16()? == value { Ok(()) } else { Err(TpmError::Value(self.what)) }
    }

    fn end(self) -> Result<(), TpmError> {
        if self.rest.is_empty() { Ok(()) } else { Err(TpmError::Trailing(self.what)) }
    }
}

#[cfg(test)]
mod tests;
