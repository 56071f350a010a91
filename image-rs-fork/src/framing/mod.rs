//! Layer blobs, uncompressed while they stream: gzip, zstd and plain, over bounded, recycled buffers.
