//! Resources of one session, in memory: few, erased when they leave, gone with the session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocols::resource::ResourcePath;
use zeroize::Zeroizing;

/// The most resources that are kept.
const MAX_ENTRIES: usize = 64;
/// The most bytes of them together.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A decrypted resource, shared with the cache it came from; the last holder erases it.
pub type Resource = Arc<Zeroizing<Vec<u8>>>;

#[derive(Default)]
pub(crate) struct Cache {
    kept: Mutex<BTreeMap<ResourcePath, Resource>>,
}

impl Cache {
    pub(crate) fn get(&self, path: &ResourcePath) -> Option<Resource> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Keeps a resource where there is room; what does not fit is asked for again.
    pub(crate) fn keep(&self, path: ResourcePath, resource: &Resource) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = kept.values().map(|resource| resource.len()).sum();
        if kept.len() < MAX_ENTRIES && bytes.saturating_add(resource.len()) <= MAX_BYTES {
            kept.insert(path, Arc::clone(resource));
        }
    }

    pub(crate) fn clear(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(bytes: usize) -> Resource {
        Arc::new(Zeroizing::new(vec![7; bytes]))
    }

    fn path(number: usize) -> ResourcePath {
        format!("a/b/{number}").parse().unwrap()
    }

    #[test]
    fn it_holds_so_many_and_so_much_and_nothing_after_the_end() {
        let cache = Cache::default();
        for number in 0..MAX_ENTRIES + 1 {
            cache.keep(path(number), &resource(1));
        }
        assert!(cache.get(&path(MAX_ENTRIES - 1)).is_some());
        assert!(cache.get(&path(MAX_ENTRIES)).is_none());
        cache.clear();
        assert!(cache.get(&path(0)).is_none());
        cache.keep(path(0), &resource(MAX_BYTES));
        cache.keep(path(1), &resource(1));
        assert!(cache.get(&path(0)).is_some() && cache.get(&path(1)).is_none());
        cache.clear();
        cache.keep(path(0), &resource(MAX_BYTES + 1));
        assert!(cache.get(&path(0)).is_none());
    }

    #[test]
    fn what_is_gone_from_it_has_no_other_holder() {
        let cache = Cache::default();
        let kept = resource(8);
        cache.keep(path(0), &kept);
        assert_eq!(Arc::strong_count(&kept), 2);
        cache.clear();
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
