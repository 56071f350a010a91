//! Challenges that were used, until they would have expired anyway.

use protocols::time::Timestamp;
use redb::{ReadableTable as _, Table};

use super::io;
use crate::{ChallengeUse, StoreError};

/// Expired challenges forgotten beside as many as come: the table shrinks.
const PURGE: usize = 64;

/// (expiry, nonce): expired ones are a range at the table's start.
pub(super) type Challenges<'t> = Table<'t, (u64, [u8; 32]), ()>;

/// Forgets some of those that have expired, more than `come`.
pub(super) fn forget_expired(known: &mut Challenges<'_>, come: usize, now: Timestamp) -> Result<(), StoreError> {
    let expired: Vec<_> = known
        .range(..(now.0, [0u8; 32]))
        .map_err(io)?
        .take(PURGE.saturating_add(come))
        .map(|entry| entry.map(|(key, _)| key.value()))
        .collect::<Result<_, _>>()
        .map_err(io)?;
    for key in expired {
        known.remove(key).map_err(io)?;
    }
    Ok(())
}

/// Places of those that were used before.
pub(super) fn used_before(known: &Challenges<'_>, challenges: &[ChallengeUse]) -> Result<Vec<usize>, StoreError> {
    let mut used = Vec::new();
    for (place, ChallengeUse { nonce, expires }) in challenges.iter().enumerate() {
        if known.get((expires.0, *nonce)).map_err(io)?.is_some() {
            used.push(place);
        }
    }
    Ok(used)
}
