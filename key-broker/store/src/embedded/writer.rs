//! One thread writes: it takes every change that waits, makes them in one transaction, and answers all of them after one
//! durable commit. Durability is what a change costs, so under load they share it.

use std::sync::Arc;
use std::thread::JoinHandle;

use redb::{Database, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::io;
use crate::StoreError;

/// Changes that share one commit, at most.
const BATCH: usize = 256;
/// Changes that wait for the writer; more wait for a place.
const WAITING: usize = 1024;

/// What a change did to the transaction.
pub(super) enum Effect<T> {
    /// Nothing: where all of a batch did nothing, nothing is committed.
    None(T),
    /// Something that must be durable before it is told.
    Changed(T),
}

/// One change, which can be made again when another of its batch spoiled the transaction.
trait Change: Send {
    /// Whether something changed. On an error the whole transaction is given up.
    fn make(&mut self, write: &WriteTransaction) -> Result<bool, StoreError>;
    /// Tells the outcome, once it is durable.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Waiting<T, F> {
    work: F,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Change for Waiting<T, F>
where
    T: Send,
    F: FnMut(&WriteTransaction) -> Result<Effect<T>, StoreError> + Send,
{
    fn make(&mut self, write: &WriteTransaction) -> Result<bool, StoreError> {
        let (outcome, changed) = match (self.work)(write)? {
            Effect::None(outcome) => (outcome, false),
            Effect::Changed(outcome) => (outcome, true),
        };
        self.outcome = Some(outcome);
        Ok(changed)
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        let told = committed.and_then(|()| outcome.ok_or_else(|| StoreError::Io("a change was not made".to_owned())));
        // Whoever asked may have gone: the change stands all the same.
        let _ = reply.send(told);
    }
}

/// The way to the thread, which ends with it.
pub(super) struct Writer {
    changes: Option<mpsc::Sender<Box<dyn Change>>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without a sender the thread ends after what it has, and only then is the file free for others.
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    pub(super) fn start(database: Arc<Database>) -> Result<Self, StoreError> {
        let (changes, queue) = mpsc::channel(WAITING);
        let thread =
            std::thread::Builder::new().name("store".into()).spawn(move || write(&database, queue)).map_err(io)?;
        Ok(Self { changes: Some(changes), thread: Some(thread) })
    }

    /// Makes a change and waits until it is durable. `work` may run several times, each in a transaction of its own.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        work: impl FnMut(&WriteTransaction) -> Result<Effect<T>, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Io("the store's writer has ended".to_owned());
        let (reply, answered) = oneshot::channel();
        let change = Box::new(Waiting { work, outcome: None, reply });
        self.changes.as_ref().ok_or_else(ended)?.send(change).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn write(database: &Database, mut queue: mpsc::Receiver<Box<dyn Change>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        commit(database, batch);
    }
}

/// How a batch ended.
enum Ended {
    Durable,
    /// The change at this place failed and nothing was committed: the others can be made without it.
    Spoiled(usize, StoreError),
    Failed(String),
}

fn commit(database: &Database, mut batch: Vec<Box<dyn Change>>) {
    while !batch.is_empty() {
        match attempt(database, &mut batch) {
            Ended::Durable => return batch.into_iter().for_each(|change| change.answer(Ok(()))),
            Ended::Failed(error) => {
                return batch.into_iter().for_each(|change| change.answer(Err(StoreError::Io(error.clone()))));
            }
            Ended::Spoiled(place, error) => batch.remove(place).answer(Err(error)),
        }
    }
}

fn attempt(database: &Database, batch: &mut [Box<dyn Change>]) -> Ended {
    let write = match database.begin_write() {
        Ok(write) => write,
        Err(error) => return Ended::Failed(error.to_string()),
    };
    let mut changed = false;
    for (place, change) in batch.iter_mut().enumerate() {
        match change.make(&write) {
            Ok(did) => changed |= did,
            Err(error) => return Ended::Spoiled(place, error),
        }
    }
    let ended =
        if changed { write.commit().map_err(|e| e.to_string()) } else { write.abort().map_err(|e| e.to_string()) };
    match ended {
        Ok(()) => Ended::Durable,
        Err(error) => Ended::Failed(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, ()> = TableDefinition::new("table");

    fn insert(write: &WriteTransaction, key: u64) -> Result<(), StoreError> {
        write.open_table(TABLE).map_err(io)?.insert(key, ()).map_err(io)?;
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_that_fails_leaves_nothing_and_spoils_no_other_of_its_batch() {
        let directory = tempfile::tempdir().unwrap();
        let database = Arc::new(Database::create(directory.path().join("file")).unwrap());
        let writer = Arc::new(Writer::start(Arc::clone(&database)).unwrap());
        let (release, held) = std::sync::mpsc::channel();
        let (begun, begins) = std::sync::mpsc::channel();
        let first = tokio::spawn({
            let writer = Arc::clone(&writer);
            async move {
                let hold = move |write: &WriteTransaction| {
                    insert(write, 0)?;
                    begun.send(()).unwrap();
                    held.recv().unwrap();
                    Ok(Effect::Changed(0))
                };
                writer.change(hold).await
            }
        });
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        // These wait together while the first holds the writer.
        let mut waiting = Vec::new();
        for key in 1..=5u64 {
            let writer = Arc::clone(&writer);
            let change = move |write: &WriteTransaction| {
                insert(write, key)?;
                match key {
                    3 => Err(StoreError::Corrupt("the third")),
                    4 => Ok(Effect::None(key)),
                    _ => Ok(Effect::Changed(key)),
                }
            };
            waiting.push(tokio::spawn(async move { writer.change(change).await }));
        }
        while WAITING - writer.changes.as_ref().unwrap().capacity() < 5 {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 0);
        let mut answers = Vec::new();
        for change in waiting {
            answers.push(change.await.unwrap().map_err(|error| error.to_string()));
        }
        let third = Err(StoreError::Corrupt("the third").to_string());
        assert_eq!(answers, [Ok(1), Ok(2), third, Ok(4), Ok(5)]);
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        let keys: Vec<u64> = table.iter().unwrap().map(|entry| entry.unwrap().0.value()).collect();
        assert_eq!(keys, [0, 1, 2, 4, 5]);
    }
}
