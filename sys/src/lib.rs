//! The only unsafe code: what safe libraries do not cover.

pub mod sha256_lanes;
