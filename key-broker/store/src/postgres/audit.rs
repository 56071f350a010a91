//! The audit log in the database.

use async_trait::async_trait;
use deadpool_postgres::Client;
use protocols::time::Timestamp;

use super::{ANSWER, ATTEMPTS, Parameters, PostgresStore, bound, discard, given_up, number, pg, sql};
use crate::{Appended, AuditStore, AuditTail, ChallengeUse, StoreError, twice};

#[async_trait]
impl AuditStore for PostgresStore {
    async fn audit_tail(&self) -> Result<AuditTail, StoreError> {
        let rows = self.query(sql::AUDIT_TAIL, &[]).await?;
        let row = rows.first().ok_or(StoreError::Corrupt("the end of the audit log"))?;
        let size: i64 = row.try_get(0).map_err(pg)?;
        let size = u64::try_from(size).map_err(|_| StoreError::Corrupt("the audit log's size"))?;
        Ok(AuditTail { size, frontier: row.try_get(1).map_err(pg)? })
    }

    async fn append_audit(
        &self,
        from: u64,
        entries: Vec<Vec<u8>>,
        frontier: Vec<u8>,
        challenges: Vec<ChallengeUse>,
        now: Timestamp,
    ) -> Result<Appended, StoreError> {
        let from = number(from)?;
        let append: Parameters<'_> = &[&from, &entries, &frontier];
        if challenges.is_empty() {
            let moved: Option<i64> = self.value(sql::APPEND_AUDIT, append).await?;
            return Ok(if moved == Some(1) { Appended::Done } else { Appended::Raced });
        }
        let twice = twice(&challenges);
        if !twice.is_empty() {
            return Ok(Appended::Used(twice));
        }
        let appended = self.append_using(append, &challenges, number(now.0)?).await?;
        self.forget_challenges(now).await?;
        Ok(appended)
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

impl PostgresStore {
    /// Uses the challenges and appends, both or neither; again where the database gave it up for another.
    async fn append_using(
        &self,
        append: Parameters<'_>,
        challenges: &[ChallengeUse],
        now: i64,
    ) -> Result<Appended, StoreError> {
        let nonces: Vec<&[u8]> = challenges.iter().map(|challenge| challenge.nonce.as_slice()).collect();
        let expire = challenges.iter().map(|challenge| number(challenge.expires.0)).collect::<Result<Vec<_>, _>>()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut client = self.client().await?;
            let ran =
                tokio::time::timeout(ANSWER, both(&mut client, append, (nonces.len(), &[&nonces, &expire, &now])))
                    .await;
            match ran {
                Ok(Ok(Both::Done)) => return Ok(Appended::Done),
                Ok(Ok(Both::Raced)) => return Ok(Appended::Raced),
                Ok(Ok(Both::Fresh(fresh))) => {
                    let used = nonces.iter().enumerate().filter(|(_, nonce)| !fresh.iter().any(|one| one == *nonce));
                    return Ok(Appended::Used(used.map(|(place, _)| place).collect()));
                }
                Ok(Err(error)) if attempt < ATTEMPTS && given_up(&error) => {}
                Ok(Err(error)) => return Err(pg(error)),
                Err(_) => return Err(discard(client)),
            }
        }
    }
}

/// How both ended.
enum Both {
    Done,
    Raced,
    /// Only these were not used before.
    Fresh(Vec<Vec<u8>>),
}

async fn both(
    client: &mut Client,
    append: Parameters<'_>,
    (asked, challenges): (usize, Parameters<'_>),
) -> Result<Both, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let statement = transaction.prepare_cached(sql::USE_CHALLENGES).await?;
    let fresh = transaction.query(&statement, challenges).await?;
    let fresh = fresh.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
    if fresh.len() < asked {
        transaction.rollback().await?;
        return Ok(Both::Fresh(fresh));
    }
    let statement = transaction.prepare_cached(sql::APPEND_AUDIT).await?;
    let moved: i64 = transaction.query_one(&statement, append).await?.try_get(0)?;
    if moved != 1 {
        transaction.rollback().await?;
        return Ok(Both::Raced);
    }
    transaction.commit().await?;
    Ok(Both::Done)
}
