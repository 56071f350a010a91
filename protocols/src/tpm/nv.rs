//! NV indices and persistent keys: what a platform has left in its TPM. Authorised by the empty password.

use super::command::{MAX_ANSWER, TPM_ST_NO_SESSIONS, TPM_ST_SESSIONS, body, parameters, sized};
use super::{ALG_SHA256, Command};

const TPM_RH_OWNER: u32 = 0x4000_0001;
const CC_NV_DEFINE_SPACE: u32 = 0x12A;
const CC_NV_WRITE: u32 = 0x137;
const CC_NV_READ: u32 = 0x14E;
const CC_NV_READ_PUBLIC: u32 = 0x169;
const CC_READ_PUBLIC: u32 = 0x173;
/// TPMA_NV of an index we make: OWNERWRITE and OWNERREAD.
const OWNER_ONLY: u32 = 1 << 1 | 1 << 17;
/// The most bytes asked for or written at once: every TPM takes 512 or more (TPM2_PT_NV_BUFFER_MAX).
pub const NV_CHUNK: u16 = 512;

/// What we need of a TPMS_NV_PUBLIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvPublic {
    /// The index's number.
    pub index: u32,
    /// Size of its data in bytes.
    pub size: u16,
}

/// Whose empty password authorises a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvReader {
    /// The owner's (TPMA_NV OWNERREAD).
    Owner,
    /// The index's own (TPMA_NV AUTHREAD), which also holds where the owner has a password.
    Index,
}

/// TPM2_NV_ReadPublic. [`super::RC_HANDLE`] where there is no such index.
#[must_use]
pub fn nv_read_public(index: u32) -> Command<NvPublic> {
    Command::plain(CC_NV_READ_PUBLIC, &[&index.to_be_bytes()], |bytes| {
        let mut reader = body(bytes, TPM_ST_NO_SESSIONS, "TPM2_NV_ReadPublic")?;
        let mut public = super::Reader::new(reader.sized(MAX_ANSWER)?, "TPMS_NV_PUBLIC");
        reader.sized(MAX_ANSWER)?;
        reader.end()?;
        let index = public.u32()?;
        // Name algorithm, attributes and policy are the platform's affair.
        public.u16()?;
        public.u32()?;
        public.sized(64)?;
        let size = public.u16()?;
        public.end()?;
        Ok(NvPublic { index, size })
    })
}

/// TPM2_NV_DefineSpace of `size` bytes that only the owner reads and writes.
#[must_use]
pub fn nv_define(index: u32, size: u16) -> Command<()> {
    let public = [
        index.to_be_bytes().as_slice(),
        &ALG_SHA256.to_be_bytes(),
        &OWNER_ONLY.to_be_bytes(),
        &[0; 2],
        &size.to_be_bytes(),
    ]
    .concat();
    Command::authorised(CC_NV_DEFINE_SPACE, &[TPM_RH_OWNER], &[&[0; 2], &sized(&public)], |bytes| {
        parameters(body(bytes, TPM_ST_SESSIONS, "TPM2_NV_DefineSpace")?)?.end()
    })
}

/// TPM2_NV_Read of at most [`NV_CHUNK`] bytes from `offset`.
#[must_use]
pub fn nv_read(reader: NvReader, index: u32, size: u16, offset: u16) -> Command<Vec<u8>> {
    let authority = match reader {
        NvReader::Owner => TPM_RH_OWNER,
        NvReader::Index => index,
    };
    let body_parts: [&[u8]; 2] = [&size.to_be_bytes(), &offset.to_be_bytes()];
    Command::authorised(CC_NV_READ, &[authority, index], &body_parts, |bytes| {
        let mut reader = parameters(body(bytes, TPM_ST_SESSIONS, "TPM2_NV_Read")?)?;
        let data = reader.sized(MAX_ANSWER)?.to_vec();
        reader.end()?;
        Ok(data)
    })
}

/// TPM2_NV_Write of at most [`NV_CHUNK`] bytes at the index's start.
#[must_use]
pub fn nv_write(index: u32, data: &[u8]) -> Command<()> {
    Command::authorised(CC_NV_WRITE, &[TPM_RH_OWNER, index], &[&sized(data), &[0; 2]], |bytes| {
        parameters(body(bytes, TPM_ST_SESSIONS, "TPM2_NV_Write")?)?.end()
    })
}

/// TPM2_ReadPublic of a loaded or persistent object: its public area, TPMT_PUBLIC. [`super::RC_HANDLE`] where there is none.
#[must_use]
pub fn read_public(handle: u32) -> Command<Vec<u8>> {
    Command::plain(CC_READ_PUBLIC, &[&handle.to_be_bytes()], |bytes| {
        let mut reader = body(bytes, TPM_ST_NO_SESSIONS, "TPM2_ReadPublic")?;
        let area = reader.sized(MAX_ANSWER)?.to_vec();
        reader.sized(MAX_ANSWER)?;
        reader.sized(MAX_ANSWER)?;
        reader.end()?;
        Ok(area)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tag: u16, content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(10 + content.len()).unwrap();
        [tag.to_be_bytes().as_slice(), &size.to_be_bytes(), &[0; 4], content].concat()
    }

    /// Every prefix of the content, framed as a whole answer, is refused.
    fn strict<T>(command: &Command<T>, tag: u16, content: &[u8]) {
        assert!(command.answer(&answer(tag, content)).is_ok());
        for length in 0..content.len() {
            assert!(command.answer(&answer(tag, &content[..length])).is_err(), "{length}");
        }
        assert!(command.answer(&answer(tag, &[content, &[0]].concat())).is_err(), "a byte more");
    }

    #[test]
    fn what_a_tpm_says_of_indices_is_read_strictly() {
        let public = [&[1, 0x40, 0, 1, 0, 0x0B, 0, 2, 0, 2, 0, 0, 10, 40][..]].concat();
        let content = [sized(&public), sized(&[7; 34])].concat();
        let command = nv_read_public(0x0140_0001);
        assert_eq!(
            command.answer(&answer(TPM_ST_NO_SESSIONS, &content)),
            Ok(NvPublic { index: 0x0140_0001, size: 2600 })
        );
        strict(&command, TPM_ST_NO_SESSIONS, &content);

        let data = [&5u32.to_be_bytes()[..], &sized(&[1, 2, 3]), &[0; 5]].concat();
        let command = nv_read(NvReader::Owner, 1, 3, 0);
        assert_eq!(command.answer(&answer(TPM_ST_SESSIONS, &data)), Ok(vec![1, 2, 3]));
        strict(&command, TPM_ST_SESSIONS, &data);
    }
}
