//! A store that gives what it has and takes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use image_rs_fork::{Candidate, Flights, ImageError, LayerKey, LayerStore, LayerWriter, Room, StoredLayer};
use protocols::image::Layout;
use protocols::reason::Refusal;

/// Remembers which stored layer did not measure what it should: a pull would fetch it again, a mount must say so.
#[derive(Debug)]
pub(crate) struct OnlyStored<'s> {
    store: &'s dyn LayerStore,
    corrupt: Arc<Mutex<Option<Refusal>>>,
}

impl<'s> OnlyStored<'s> {
    pub(crate) fn new(store: &'s dyn LayerStore) -> Self {
        Self { store, corrupt: Arc::default() }
    }

    /// The refusal of the first layer that could not be used.
    pub(crate) fn corrupt(&self) -> Option<Refusal> {
        self.corrupt.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl LayerStore for OnlyStored<'_> {
    fn layout(&self) -> Layout {
        self.store.layout()
    }

    fn flights(&self) -> Option<&Flights> {
        self.store.flights()
    }

    fn stored(&self, layer: &LayerKey) -> Result<Option<Box<dyn Candidate>>, ImageError> {
        let found = self.store.stored(layer)?;
        Ok(found.map(|candidate| -> Box<dyn Candidate> {
            Box::new(Watched { candidate, corrupt: Arc::clone(&self.corrupt) })
        }))
    }

    fn begin(&self, layer: &LayerKey, room: Room) -> Result<Box<dyn LayerWriter>, ImageError> {
        self.store.begin(layer, room)
    }
}

#[derive(Debug)]
struct Watched {
    candidate: Box<dyn Candidate>,
    corrupt: Arc<Mutex<Option<Refusal>>>,
}

impl Candidate for Watched {
    fn measure(self: Box<Self>) -> Result<StoredLayer, ImageError> {
        let measured = self.candidate.measure();
        if let Err(error @ ImageError::StoreCorrupt { .. }) = &measured {
            self.corrupt.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.refusal());
        }
        measured
    }
}
