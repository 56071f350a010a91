//! How much room a store takes: a quota, what counts towards it, and what gives way.
//!
//! Layers are counted while they are written; where the quota is reached, stored layers that nobody holds a
//! [`Lease`] of are removed, the one that was asked for longest ago first. What the other layout has below the same
//! root counts too, but does not give way: only a store of that layout knows what of it is in use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::ImageError;
use crate::pull::Flights;

/// Removes a stored layer by name; called with the account locked.
type Remove = Box<dyn Fn(&str) -> Result<(), ImageError> + Send + Sync>;

/// The account of one store.
pub(crate) struct Space {
    root: PathBuf,
    /// In bytes; without one nothing is ever removed.
    quota: Option<u64>,
    remove: Remove,
    books: Mutex<Books>,
    flights: Flights,
}

#[derive(Debug, Default)]
struct Books {
    /// Stored layers and those being written, in bytes.
    used: u64,
    layers: HashMap<String, Entry>,
    /// Grows with every use.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    /// When it was last asked for.
    used: u64,
    lease: Lease,
}

/// Keeps a stored layer from being removed to make room, as long as any clone of it lives.
#[derive(Debug, Clone)]
pub(crate) struct Lease(Arc<()>);

impl Lease {
    /// Whether somebody besides the account has one. Under its lock nobody can come by a first one.
    fn is_out(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("quota", &self.quota).field("books", &self.books).finish_non_exhaustive()
    }
}

impl Space {
    /// An empty account of the store at `root`. `remove` must be done with a layer when it returns.
    pub(crate) fn new(
        root: &Path,
        quota: Option<u64>,
        remove: impl Fn(&str) -> Result<(), ImageError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            quota,
            remove: Box::new(remove),
            books: Mutex::default(),
            flights: Flights::default(),
        })
    }

    /// The layers under way.
    pub(crate) const fn flights(&self) -> &Flights {
        &self.flights
    }

    /// Whether bytes are counted at all.
    pub(crate) const fn is_limited(&self) -> bool {
        self.quota.is_some()
    }

    /// Counts a layer that is stored already; those used longest ago come first.
    pub(crate) fn track(&self, name: &str, bytes: u64) {
        self.books().insert(name, bytes);
    }

    /// Counts what is not this account's to remove.
    pub(crate) fn count(&self, bytes: u64) {
        let mut books = self.books();
        books.used = books.used.saturating_add(bytes);
    }

    /// The stored layers whose names begin so.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let books = self.books();
        let mut names: Vec<String> = books.layers.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.sort_unstable();
        names
    }

    /// Holds a stored layer; `None` where the account knows none of that name.
    pub(crate) fn lease(&self, name: &str) -> Option<Lease> {
        let mut books = self.books();
        let now = books.tick();
        let entry = books.layers.get_mut(name)?;
        entry.used = now;
        Some(entry.lease.clone())
    }

    /// A stored layer is gone.
    pub(crate) fn forget(&self, name: &str) {
        let mut books = self.books();
        if let Some(entry) = books.layers.remove(name) {
            books.used = books.used.saturating_sub(entry.bytes);
        }
    }

    /// Removes every layer that nobody holds; gives how many.
    pub(crate) fn clear(&self) -> Result<usize, ImageError> {
        let mut books = self.books();
        let mut removed = 0;
        while let Some(oldest) = books.oldest() {
            (self.remove)(&oldest)?;
            if let Some(entry) = books.layers.remove(&oldest) {
                books.used = books.used.saturating_sub(entry.bytes);
            }
            removed += 1;
        }
        Ok(removed)
    }

    /// Bytes that count at the moment.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.books().used
    }

    /// Starts to count a layer that is being written.
    pub(crate) fn begin(self: &Arc<Self>) -> Growth {
        Growth { space: Arc::clone(self), bytes: 0 }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds room for `bytes` more.
    fn grow(&self, bytes: u64) -> Result<(), ImageError> {
        let mut books = self.books();
        let quota = self.quota.unwrap_or(u64::MAX);
        while books.used.saturating_add(bytes) > quota {
            let Some(oldest) = books.oldest() else {
                let (path, in_use) = (self.root.clone(), books.used);
                return Err(ImageError::StoreQuota { path, quota, in_use, wanted: bytes });
            };
            (self.remove)(&oldest)?;
            tracing::info!(layer = oldest, "removed from the image store to make room");
            if let Some(entry) = books.layers.remove(&oldest) {
                books.used = books.used.saturating_sub(entry.bytes);
            }
        }
        books.used = books.used.saturating_add(bytes);
        Ok(())
    }
}

impl Books {
    fn tick(&mut self) -> u64 {
        self.clock = self.clock.saturating_add(1);
        self.clock
    }

    fn insert(&mut self, name: &str, bytes: u64) -> Lease {
        let lease = Lease(Arc::new(()));
        let entry = Entry { bytes, used: self.tick(), lease: lease.clone() };
        self.used = self.used.saturating_add(bytes);
        if let Some(before) = self.layers.insert(name.to_owned(), entry) {
            self.used = self.used.saturating_sub(before.bytes);
        }
        lease
    }

    /// The layer that was asked for longest ago, of those that nobody holds.
    fn oldest(&self) -> Option<String> {
        let free = self.layers.iter().filter(|(_, entry)| !entry.lease.is_out());
        free.min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone())
    }
}

/// What a layer that is being written takes; given back when dropped.
#[derive(Debug)]
pub(crate) struct Growth {
    space: Arc<Space>,
    bytes: u64,
}

impl Growth {
    /// Takes room before it is written to, removing other layers where that is needed and enough.
    ///
    /// # Errors
    /// `store.quota`; `store.io` when a layer cannot be removed.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), ImageError> {
        // Without a quota there is nothing to compare with, and no reason to meet other writers at a lock.
        if self.space.is_limited() {
            self.space.grow(bytes)?;
            self.bytes = self.bytes.saturating_add(bytes);
        }
        Ok(())
    }

    /// The layer is stored under `name` and held.
    pub(crate) fn keep(mut self, name: &str) -> Lease {
        let mut books = self.space.books();
        let bytes = std::mem::take(&mut self.bytes);
        books.used = books.used.saturating_sub(bytes);
        books.insert(name, bytes)
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        let mut books = self.space.books();
        books.used = books.used.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use protocols::reason;

    use super::*;

    /// An account that remembers what it removed.
    fn account(quota: u64) -> (Arc<Space>, Arc<Mutex<Vec<String>>>) {
        let removed: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&removed);
        let remove = move |name: &str| {
            log.lock().unwrap().push(name.to_owned());
            Ok(())
        };
        (Space::new(Path::new("/store"), Some(quota), remove), removed)
    }

    fn store(space: &Arc<Space>, name: &str, bytes: u64) -> Lease {
        let mut growth = space.begin();
        growth.grow(bytes).unwrap();
        growth.keep(name)
    }

    #[test]
    fn what_was_used_longest_ago_and_is_not_held_gives_way() {
        let (space, removed) = account(100);
        drop(store(&space, "a", 30));
        drop(store(&space, "b", 30));
        let held = store(&space, "c", 30);
        drop(space.lease("a").unwrap());
        let mut growth = space.begin();
        growth.grow(40).unwrap();
        assert_eq!(*removed.lock().unwrap(), ["b"], "a was used later, c is held");
        assert!(space.lease("b").is_none());
        growth.grow(30).unwrap();
        assert_eq!(*removed.lock().unwrap(), ["b", "a"]);
        let error = growth.grow(1).unwrap_err();
        assert_eq!(error.code(), reason::STORE_QUOTA);
        assert_eq!(error.to_string(), "/store: 1 bytes more than the quota of 100 bytes leaves, 100 in use");
        drop(held);
        growth.grow(1).unwrap();
        assert_eq!((space.used(), removed.lock().unwrap().len()), (71, 3));
        drop(growth);
        assert_eq!(space.used(), 0, "what was not kept is given back");
    }

    #[test]
    fn any_clone_of_a_lease_holds() {
        let (space, removed) = account(10);
        let lease = store(&space, "a", 10);
        let clone = lease.clone();
        drop(lease);
        assert!(space.begin().grow(1).is_err());
        drop(clone);
        space.begin().grow(1).unwrap();
        assert_eq!(*removed.lock().unwrap(), ["a"]);
    }

    #[test]
    fn a_layer_that_cannot_be_removed_still_counts() {
        let failing = |_: &str| Err(ImageError::StoreFull { path: PathBuf::new() });
        let space = Space::new(Path::new("/store"), Some(10), failing);
        space.track("a", 10);
        assert_eq!(space.begin().grow(1).unwrap_err().code(), reason::STORE_FULL);
        assert_eq!(space.used(), 10);
        assert!(space.lease("a").is_some());
        space.forget("a");
        space.forget("a");
        assert_eq!(space.used(), 0);
    }

    #[test]
    fn without_a_quota_nothing_gives_way() {
        let refuse = |_: &str| panic!("nothing is to be removed");
        let space = Space::new(Path::new("/store"), None, refuse);
        space.track("a", u64::MAX);
        let mut growth = space.begin();
        growth.grow(u64::MAX).unwrap();
        drop(growth.keep("b"));
        assert!(space.lease("a").is_some() && space.lease("b").is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Store(u8, u64),
        Abandon(u64),
        Hold(u8),
        Release,
        Forget(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u8, 0..70u64).prop_map(|(name, bytes)| Step::Store(name, bytes)),
            (0..70u64).prop_map(Step::Abandon),
            (0..6u8).prop_map(Step::Hold),
            Just(Step::Release),
            (0..6u8).prop_map(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn the_quota_holds_and_so_do_leases(steps in vec(step(), 0..60)) {
            let (space, removed) = account(100);
            let mut held: Vec<(String, Lease)> = Vec::new();
            for step in steps {
                removed.lock().unwrap().clear();
                match step {
                    Step::Store(name, bytes) => {
                        let name = name.to_string();
                        // A store begins a layer only where it has none.
                        if space.lease(&name).is_none() {
                            let mut growth = space.begin();
                            let free: u64 = {
                                let books = space.books();
                                books.layers.values().filter(|e| !e.lease.is_out()).map(|e| e.bytes).sum()
                            };
                            let fits = space.used() - free + bytes <= 100;
                            let grown = growth.grow(bytes);
                            prop_assert_eq!(grown.is_ok(), fits);
                            if grown.is_ok() {
                                drop(growth.keep(&name));
                            }
                        }
                    }
                    Step::Abandon(bytes) => drop(space.begin().grow(bytes)),
                    Step::Hold(name) => held.extend(space.lease(&name.to_string()).map(|l| (name.to_string(), l))),
                    Step::Release => drop(held.pop()),
                    Step::Forget(name) => {
                        let name = name.to_string();
                        if !held.iter().any(|(held, _)| *held == name) {
                            space.forget(&name);
                        }
                    }
                }
                for name in removed.lock().unwrap().iter() {
                    prop_assert!(!held.iter().any(|(held, _)| held == name), "{} is held", name);
                }
                let books = space.books();
                prop_assert!(books.used <= 100);
                prop_assert_eq!(books.used, books.layers.values().map(|entry| entry.bytes).sum::<u64>());
            }
        }
    }
}
