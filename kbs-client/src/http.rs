//! The thin shell: one request, bounded in time and size.
