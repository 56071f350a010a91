//! The tables, as steps from nothing to today. A step that a release has shipped is never changed: the next one is added.

use deadpool_postgres::Client;

use super::{LOCK_MIGRATION, pg};
use crate::StoreError;

/// The steps; their number is the version.
const STEPS: &[&str] = &[include_str!("001.sql")];

/// Brings the tables to this release's version; gives the wrapped data key if there is one, else keeps `new`. One process
/// does so at a time.
///
/// # Errors
/// [`StoreError::Corrupt`] when a later release made them.
pub(super) async fn migrate(client: &mut Client, new: &[u8]) -> Result<Vec<u8>, StoreError> {
    let transaction = client.transaction().await.map_err(pg)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK_MIGRATION]).await.map_err(pg)?;
    transaction.batch_execute("CREATE TABLE IF NOT EXISTS tcl_schema (version integer NOT NULL)").await.map_err(pg)?;
    let row = transaction.query_opt("SELECT version FROM tcl_schema", &[]).await.map_err(pg)?;
    let version: i32 = row.as_ref().map_or(0, |row| row.get(0));
    let done = usize::try_from(version).map_err(|_| StoreError::Corrupt("the version of the tables"))?;
    let steps = STEPS.get(done..).ok_or(StoreError::Corrupt("a database of a later release"))?;
    for step in steps {
        transaction.batch_execute(step).await.map_err(pg)?;
    }
    let latest = i32::try_from(STEPS.len()).map_err(|_| StoreError::Corrupt("the version of the tables"))?;
    let statement = match row {
        None => "INSERT INTO tcl_schema (version) VALUES ($1)",
        Some(_) => "UPDATE tcl_schema SET version = $1",
    };
    transaction.execute(statement, &[&latest]).await.map_err(pg)?;
    let keep = "INSERT INTO data_key (wrapped) VALUES ($1) ON CONFLICT DO NOTHING";
    transaction.execute(keep, &[&new]).await.map_err(pg)?;
    let kept = transaction.query_one("SELECT wrapped FROM data_key", &[]).await.map_err(pg)?.get(0);
    transaction.commit().await.map_err(pg)?;
    Ok(kept)
}
