//! The audit log in the database.

use async_trait::async_trait;

use super::{PostgresStore, bound, number, pg, sql};
use crate::{AuditStore, AuditTail, Commit, StoreError};

#[async_trait]
impl AuditStore for PostgresStore {
    async fn audit_tail(&self) -> Result<AuditTail, StoreError> {
        let rows = self.query(sql::AUDIT_TAIL, &[]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("the end of the audit log"))?;
        let size: i64 = row.try_get(0).map_err(pg)?;
        let size = u64::try_from(size).map_err(|_| StoreError::Corrupt("the audit log's size"))?;
        Ok(AuditTail { size, frontier: row.try_get(1).map_err(pg)? })
    }

    async fn append_audit(&self, from: u64, entries: Vec<Vec<u8>>, frontier: Vec<u8>) -> Result<Commit, StoreError> {
        let moved: Option<i64> = self.value(sql::APPEND_AUDIT, &[&number(from)?, &entries, &frontier]).await?;
        Ok(if moved == Some(1) { Commit::Done } else { Commit::Raced })
    }

    async fn audit_entries(&self, from: u64, max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        // The log only grows: what lay before its end stays there.
        let size = self.audit_tail().await?.size;
        let rows = self.query(sql::AUDIT_ENTRIES, &[&bound(from), &bound(size), &bound(max)]).await?;
        let missing = StoreError::Corrupt("an entry of the audit log");
        let expected = size.saturating_sub(from).min(u64::try_from(max).unwrap_or(u64::MAX));
        if u64::try_from(rows.len()) != Ok(expected) {
            return Err(missing);
        }
        let mut entries = Vec::with_capacity(rows.len());
        for (row, place) in rows.iter().zip(from..) {
            if row.try_get::<_, i64>(0).map_err(pg)? != bound(place) {
                return Err(missing);
            }
            entries.push(row.try_get(1).map_err(pg)?);
        }
        Ok(entries)
    }
}
