//! Where verified layers are kept: the seam between pulling and a layout on disk.

use protocols::image::Layout;

/// A place for layers in one layout. It is given bytes of a layer while they are being verified, and
/// shows nothing before they are; what it gives back of a layer stored before, it measures again.
pub trait LayerStore: Send + Sync + std::fmt::Debug {
    /// The layout, which decides the root file system's digest.
    fn layout(&self) -> Layout;
}
