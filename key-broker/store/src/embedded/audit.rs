//! The audit log in the file.

use async_trait::async_trait;
use protocols::time::Timestamp;
use redb::ReadableTable as _;

use super::challenges::{forget_expired, used_before};
use super::writer::Effect;
use super::{AUDIT, AUDIT_TAIL, CHALLENGES, EmbeddedStore, io};
use crate::{Appended, AuditStore, AuditTail, ChallengeUse, StoreError, twice};

#[async_trait]
impl AuditStore for EmbeddedStore {
    async fn audit_tail(&self) -> Result<AuditTail, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(AUDIT_TAIL).map_err(io)?;
            let stored = table.get(()).map_err(io)?;
            Ok(stored.map_or_else(AuditTail::default, |row| {
                let (size, frontier) = row.value();
                AuditTail { size, frontier: frontier.to_vec() }
            }))
        })
    }

    async fn append_audit(
        &self,
        from: u64,
        entries: Vec<Vec<u8>>,
        frontier: Vec<u8>,
        challenges: Vec<ChallengeUse>,
        now: Timestamp,
    ) -> Result<Appended, StoreError> {
        self.writer
            .change(move |write| {
                let mut tail = write.open_table(AUDIT_TAIL).map_err(io)?;
                let mut size = tail.get(()).map_err(io)?.map_or(0, |row| row.value().0);
                if size != from {
                    return Ok(Effect::None(Appended::Raced));
                }
                if !challenges.is_empty() {
                    let mut known = write.open_table(CHALLENGES).map_err(io)?;
                    forget_expired(&mut known, challenges.len(), now)?;
                    let twice = twice(&challenges);
                    let used = if twice.is_empty() { used_before(&known, &challenges)? } else { twice };
                    if !used.is_empty() {
                        return Ok(Effect::None(Appended::Used(used)));
                    }
                    for ChallengeUse { nonce, expires } in &challenges {
                        known.insert((expires.0, *nonce), ()).map_err(io)?;
                    }
                }
                let mut table = write.open_table(AUDIT).map_err(io)?;
                for entry in &entries {
                    table.insert(size, entry.as_slice()).map_err(io)?;
                    size = size.checked_add(1).ok_or(StoreError::Corrupt("the audit log's size"))?;
                }
                tail.insert((), (size, frontier.as_slice())).map_err(io)?;
                Ok(Effect::Changed(Appended::Done))
            })
            .await
    }

    async fn audit_entries(&self, from: u64, max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(move |read| {
            let size = read.open_table(AUDIT_TAIL).map_err(io)?.get(()).map_err(io)?.map_or(0, |row| row.value().0);
            let table = read.open_table(AUDIT).map_err(io)?;
            let mut entries = Vec::new();
            for place in (from..size).take(max) {
                let entry = table.get(place).map_err(io)?.ok_or(StoreError::Corrupt("an entry of the audit log"))?;
                entries.push(entry.value().to_vec());
            }
            Ok(entries)
        })
        .await
    }
}
