//! The image config.
