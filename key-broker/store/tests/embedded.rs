//! The store in one file: the cases of every store, and what only a file can show.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod cases;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use broker_store::{EmbeddedStore, LocalKey, Store, StoreError};

use cases::Medium;

struct File(tempfile::TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Medium for File {
    async fn open_with(&self, key: &LocalKey) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(EmbeddedStore::open(&self.0.path().join("broker.redb"), key).await?))
    }

    async fn raw(&self) -> Vec<u8> {
        std::fs::read(self.0.path().join("broker.redb")).unwrap()
    }
}

conformance!(File::new());

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_waits_for_a_holder_that_is_just_ending() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.redb");
    let held = EmbeddedStore::open(&path, &cases::store_key()).await.unwrap();
    let next = tokio::spawn(async move { EmbeddedStore::open(&path, &cases::store_key()).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    drop(held);
    next.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_process_holds_the_file_and_a_foreign_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.redb");
    let key = cases::store_key();
    let _held = EmbeddedStore::open(&path, &key).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(EmbeddedStore::open(&path, &key).await, Err(StoreError::InUse)));
    let foreign = directory.path().join("foreign");
    std::fs::write(&foreign, b"something else entirely, and long enough to be read as a header").unwrap();
    assert!(EmbeddedStore::open(&foreign, &key).await.is_err());
}
