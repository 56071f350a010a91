//! Layers that pulls of one process are at work on, so that each is fetched by one of them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};

use protocols::digest::Sha256Digest;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Layers under way in one store, by chain ID.
///
/// Whoever comes second waits and then finds the layer stored; when the first has failed, it fetches the layer
/// itself. A pull that has a layer needs nothing but the layers below it to let go of it, and waits for layers of
/// one blob lowest first: no two pulls can wait for each other.
#[derive(Debug, Default)]
pub struct Flights(std::sync::Mutex<HashMap<Sha256Digest, Weak<Mutex<()>>>>);

/// The right to store a layer; ends when dropped.
pub(super) type Flight = OwnedMutexGuard<()>;

impl Flights {
    /// The layer's lock, made where there is none.
    pub(super) fn of(&self, chain: &Sha256Digest) -> Arc<Mutex<()>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = known.get(chain).and_then(Weak::upgrade) {
            return flight;
        }
        known.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        known.insert(*chain, Arc::downgrade(&flight));
        flight
    }
}
