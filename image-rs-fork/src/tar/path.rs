//! Paths from an archive, made safe.

use std::fmt;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// A NUL byte in it.
    #[error("a NUL byte in a path")]
    Nul,
    /// Longer than the limit.
    #[error("a path of {actual} bytes, more than {limit}")]
    Long {
        /// Bytes it has.
        actual: usize,
        /// Bytes it may have.
        limit: u32,
    },
    /// A component longer than the limit.
    #[error("a path component of {actual} bytes, more than {limit}")]
    ComponentLong {
        /// Bytes it has.
        actual: usize,
        /// Bytes it may have.
        limit: u32,
    },
}

/// A path below the layer's root: components joined by single `/`, none of them empty, `.` or `..`, no NUL,
/// no leading or trailing `/`. Empty for the root itself. Any other bytes, UTF-8 or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TarPath<'a>(&'a [u8]);

impl<'a> TarPath<'a> {
    /// The layer's root.
    pub const ROOT: TarPath<'static> = TarPath(b"");

    /// Takes a path that is normal already; `None` for any other.
    #[must_use]
    pub fn from_clean(bytes: &'a [u8]) -> Option<Self> {
        let clean = bytes.is_empty()
            || bytes.split(|b| *b == b'/').all(|c| !c.is_empty() && c != b"." && c != b".." && !c.contains(&0));
        clean.then_some(Self(bytes))
    }

    /// The bytes, such as `usr/bin/env`.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether this is the layer's root.
    #[must_use]
    pub const fn is_root(self) -> bool {
        self.0.is_empty()
    }

    /// The components from the top.
    #[must_use]
    pub const fn components(self) -> Components<'a> {
        Components(self.0)
    }

    /// The directory it lies in and its last component; `None` for the root.
    #[must_use]
    pub fn split(self) -> Option<(Self, &'a [u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => {
                let (parent, name) = self.0.split_at_checked(at)?;
                Some((Self(parent), name.get(1..)?))
            }
            None => Some((TarPath::ROOT, self.0)),
        }
    }
}

impl fmt::Display for TarPath<'_> {
    /// With a leading `/`; bytes that are no printable ASCII are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for TarPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The components of a [`TarPath`].
#[derive(Debug, Clone)]
pub struct Components<'a>(&'a [u8]);

impl<'a> Iterator for Components<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let at = self.0.iter().position(|b| *b == b'/').unwrap_or(self.0.len());
        let (head, rest) = self.0.split_at_checked(at)?;
        self.0 = rest.get(1..).unwrap_or_default();
        Some(head)
    }
}
