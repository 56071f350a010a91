//! Paths inside a layer: bytes, relative to its root, joined by single slashes; the root is empty.

use super::LayerError;

/// The deepest path, in components. Real images stay below 40.
pub(crate) const MAX_DEPTH: usize = 256;
/// The longest name, in bytes (`NAME_MAX`).
pub(crate) const MAX_NAME: usize = 255;
/// The longest path in bytes (`PATH_MAX` without its NUL).
pub(crate) const MAX_PATH: usize = 4095;

/// `parent` and `name` joined, within the bounds of a path: the targets of symbolic links on its way are bounded
/// nowhere else.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Result<Vec<u8>, LayerError> {
    let joined = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
    if name.len() > MAX_NAME {
        return Err(LayerError::Limit { what: "bytes of a name in a path", limit: MAX_NAME as u64 });
    }
    if joined.len() > MAX_PATH {
        return Err(LayerError::Limit { what: "bytes of a path", limit: MAX_PATH as u64 });
    }
    if joined.split(|b| *b == b'/').count() > MAX_DEPTH {
        return Err(LayerError::Limit { what: "names in a path", limit: MAX_DEPTH as u64 });
    }
    Ok(joined)
}

/// The directory a path is in and its name there; the root has neither.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|b| *b == b'/') {
        None => Some((b"", path)),
        Some(at) => Some((path.get(..at)?, path.get(at.saturating_add(1)..)?)),
    }
}

/// The directories above a path and the path itself, from the root on.
pub(crate) fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    let whole = (!path.is_empty()).then_some(path.len());
    std::iter::once(0).chain(ends).chain(whole).filter_map(|end| path.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_from_the_root_to_the_path() {
        let all = |path: &'static [u8]| prefixes(path).collect::<Vec<_>>();
        assert_eq!(all(b""), [b""]);
        assert_eq!(all(b"a/bc/d"), [&b""[..], b"a", b"a/bc", b"a/bc/d"]);
    }

    #[test]
    fn a_path_splits_into_parent_and_name() {
        assert_eq!(split(b"a/b/c"), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(split(b"a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(split(b""), None);
    }
}
