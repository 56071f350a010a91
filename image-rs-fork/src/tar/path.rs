//! Paths from an archive, made safe.

use std::fmt;

use super::limits::TarLimits;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// A NUL byte in it.
    #[error("a NUL byte in a path")]
    Nul,
    /// A hard link's target climbs above the layer's root.
    #[error("a path above the layer's root")]
    Escapes,
    /// Longer than the limit.
    #[error("a path of {actual} bytes, more than {limit}")]
    Long {
        /// Bytes it has.
        actual: usize,
        /// Bytes it may have.
        limit: u32,
    },
    /// Deeper than the limit.
    #[error("a path of more than {limit} components")]
    Deep {
        /// Components it may have.
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

/// What `..` at the root gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Above {
    /// The root again, as containerd has it for the names of entries.
    Clamp,
    /// A refusal, for the targets of hard links.
    Refuse,
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
        (bytes.is_empty() || shape(bytes, u32::MAX).is_ok_and(|clean| clean)).then_some(Self(bytes))
    }

    /// Makes any path normal by its text alone: an absolute one starts at the layer's root, `.` and empty
    /// components vanish, `..` takes away the component before it. `scratch` is used where `raw` cannot be
    /// borrowed from; its content is lost.
    ///
    /// # Errors
    /// [`PathProblem`].
    pub fn normalize(
        raw: &'a [u8],
        above: Above,
        limits: &TarLimits,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Self, PathProblem> {
        if raw.len() > usize::try_from(limits.name_bytes).unwrap_or(usize::MAX) {
            return Err(PathProblem::Long { actual: raw.len(), limit: limits.name_bytes });
        }
        let mut inner = raw;
        loop {
            match inner {
                [b'/', rest @ ..] | [b'.', b'/', rest @ ..] | [rest @ .., b'/'] => inner = rest,
                [] | [b'.'] => return Ok(TarPath::ROOT),
                _ => break,
            }
        }
        let deep = |path: &[u8]| {
            let count = path.iter().filter(|b| **b == b'/').count();
            count >= usize::try_from(limits.components).unwrap_or(usize::MAX)
        };
        if shape(inner, limits.component_bytes)? {
            return if deep(inner) { Err(PathProblem::Deep { limit: limits.components }) } else { Ok(Self(inner)) };
        }
        scratch.clear();
        for component in inner.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => match scratch.iter().rposition(|b| *b == b'/') {
                    Some(at) => scratch.truncate(at),
                    None if scratch.is_empty() && above == Above::Refuse => return Err(PathProblem::Escapes),
                    None => scratch.clear(),
                },
                name => {
                    if !scratch.is_empty() {
                        scratch.push(b'/');
                    }
                    scratch.extend_from_slice(name);
                }
            }
        }
        if deep(scratch) { Err(PathProblem::Deep { limit: limits.components }) } else { Ok(Self(scratch)) }
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

/// Whether `path` has no empty, `.` or `..` component.
fn shape(path: &[u8], component_limit: u32) -> Result<bool, PathProblem> {
    let limit = usize::try_from(component_limit).unwrap_or(usize::MAX);
    let mut clean = true;
    let mut length = 0usize;
    let mut dots = 0usize;
    for byte in path.iter().chain(std::iter::once(&b'/')) {
        match byte {
            b'/' => {
                clean &= length > 0 && (dots != length || length > 2);
                if length > limit {
                    return Err(PathProblem::ComponentLong { actual: length, limit: component_limit });
                }
                length = 0;
                dots = 0;
                continue;
            }
            b'.' => dots += 1,
            0 => return Err(PathProblem::Nul),
            _ => {}
        }
        length += 1;
    }
    Ok(clean)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &[u8], above: Above) -> Result<Vec<u8>, PathProblem> {
        let mut scratch = b"left over".to_vec();
        TarPath::normalize(raw, above, &TarLimits::default(), &mut scratch).map(|path| path.as_bytes().to_vec())
    }

    #[test]
    fn paths_become_relative_to_the_root_by_their_text() {
        for (raw, clean) in [
            (&b"usr/bin/env"[..], &b"usr/bin/env"[..]),
            (b"./usr/bin/", b"usr/bin"),
            (b"/usr//bin///env", b"usr/bin/env"),
            (b"//etc/passwd", b"etc/passwd"),
            (b"", b""),
            (b".", b""),
            (b"./", b""),
            (b"/", b""),
            (b"././/./", b""),
            (b"a/./b/.", b"a/b"),
            (b"a/../b", b"b"),
            (b"a/b/../../c", b"c"),
            (b"a/..", b""),
            (b"..a/.b/...", b"..a/.b/..."),
            (b"\xff\xfe/\xc3", b"\xff\xfe/\xc3"),
        ] {
            assert_eq!(normal(raw, Above::Refuse).unwrap(), clean, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn climbing_above_the_root_is_clamped_or_refused() {
        for (raw, clean) in [
            (&b"../x"[..], &b"x"[..]),
            (b"/../../etc", b"etc"),
            (b"a/../../../b/c", b"b/c"),
            (b"..", b""),
            (b"../", b""),
        ] {
            assert_eq!(normal(raw, Above::Clamp).unwrap(), clean, "{}", raw.escape_ascii());
            assert_eq!(normal(raw, Above::Refuse), Err(PathProblem::Escapes), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn nul_and_length_are_refused() {
        assert_eq!(normal(b"a/b\0c", Above::Clamp), Err(PathProblem::Nul));
        assert_eq!(normal(b"../b\0c", Above::Clamp), Err(PathProblem::Nul));
        let name = [b'n'; 256];
        assert_eq!(normal(&name, Above::Clamp), Err(PathProblem::ComponentLong { actual: 256, limit: 255 }));
        assert!(normal(&name[..255], Above::Clamp).is_ok());
        let long = [vec![b'n'; 255], vec![b'/']].concat().repeat(16);
        assert_eq!(normal(&long, Above::Clamp), Err(PathProblem::Long { actual: 4096, limit: 4095 }));
        assert!(normal(&long[..4095], Above::Clamp).is_ok());
        let deep = b"d/".repeat(257);
        assert_eq!(normal(&deep, Above::Clamp), Err(PathProblem::Deep { limit: 256 }));
        assert_eq!(normal(&[b"./", &deep[..]].concat(), Above::Clamp), Err(PathProblem::Deep { limit: 256 }));
        assert!(normal(&deep[2..], Above::Clamp).is_ok());
    }

    #[test]
    fn only_normal_paths_are_taken_as_they_are() {
        for good in [&b""[..], b"a", b"a/b", b"...", b".wh.x"] {
            assert_eq!(TarPath::from_clean(good).unwrap().as_bytes(), good);
        }
        for bad in [&b"/"[..], b"/a", b"a/", b"a//b", b".", b"a/..", b"a\0"] {
            assert_eq!(TarPath::from_clean(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_path_falls_apart_into_components_and_into_parent_and_name() {
        let path = TarPath::from_clean(b"usr/bin/env").unwrap();
        assert_eq!(path.components().collect::<Vec<_>>(), [&b"usr"[..], b"bin", b"env"]);
        assert_eq!(path.split(), Some((TarPath::from_clean(b"usr/bin").unwrap(), &b"env"[..])));
        assert_eq!(TarPath::from_clean(b"usr").unwrap().split(), Some((TarPath::ROOT, &b"usr"[..])));
        assert_eq!(TarPath::ROOT.split(), None);
        assert_eq!(TarPath::ROOT.components().count(), 0);
        assert_eq!(TarPath::from_clean(b"a\n/\xff").unwrap().to_string(), "/a\\n/\\xff");
    }
}
