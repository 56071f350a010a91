//! Names that stand for deletions. Source: OCI image specification, `layer.md`.

use crate::erofs::Problem;
use crate::tar::TarPath;

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's name makes of it, whatever its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark<'a> {
    /// An ordinary entry.
    None,
    /// AUFS's own book-keeping (`.wh..wh.plnk` and the like), and everything in it.
    Ignored,
    /// The directory hides what lower layers have in it.
    Opaque(TarPath<'a>),
    /// In this directory, this name of lower layers is hidden.
    Whiteout(TarPath<'a>, &'a [u8]),
}

/// Reads an entry's name.
pub(crate) fn classify(path: TarPath<'_>) -> Result<Mark<'_>, Problem> {
    let Some((dir, name)) = path.split() else { return Ok(Mark::None) };
    if let Some(marked) = dir.components().find(|component| component.starts_with(PREFIX)) {
        return if marked.starts_with(META) { Ok(Mark::Ignored) } else { Err(Problem::BelowWhiteout) };
    }
    if name == OPAQUE {
        return Ok(Mark::Opaque(dir));
    }
    if name.starts_with(META) {
        return Ok(Mark::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Mark::None),
        Some(b"" | b"." | b"..") => Err(Problem::WhiteoutName),
        Some(hidden) => Ok(Mark::Whiteout(dir, hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TarPath<'_> {
        TarPath::from_clean(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_read_as_the_specification_has_them() {
        for (text, mark) in [
            ("a/b", Mark::None),
            ("a/.wh", Mark::None),
            ("a.wh.b", Mark::None),
            (".wh.a", Mark::Whiteout(TarPath::ROOT, b"a")),
            ("d/.wh.a", Mark::Whiteout(path("d"), b"a")),
            ("d/.wh..a", Mark::Whiteout(path("d"), b".a")),
            ("d/.wh....", Mark::Whiteout(path("d"), b"...")),
            (".wh..wh..opq", Mark::Opaque(TarPath::ROOT)),
            ("d/.wh..wh..opq", Mark::Opaque(path("d"))),
            (".wh..wh.plnk", Mark::Ignored),
            (".wh..wh.plnk/1.2", Mark::Ignored),
            ("", Mark::None),
        ] {
            assert_eq!(classify(path(text)).unwrap(), mark, "{text}");
        }
    }

    #[test]
    fn whiteouts_of_nothing_or_with_content_are_refused() {
        for text in [".wh.", "d/.wh.", ".wh..", ".wh...", ".wh.a/b", "d/.wh.a/b/c"] {
            assert!(classify(path(text)).is_err(), "{text}");
        }
    }
}
