//! Names of the key broker's resources.

use std::fmt;
use std::str::FromStr;

/// The longest path, in bytes.
pub const MAX_PATH: usize = 512;

/// `repository/type/tag`, each of letters, digits, `.`, `_`, `-`, and none of them only dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePath(String);

impl ResourcePath {
    /// The path without a leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a resource path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a resource path is repository/type/tag, of letters, digits, dots, underscores and hyphens")]
pub struct ResourcePathError;

impl FromStr for ResourcePath {
    type Err = ResourcePathError;

    fn from_str(text: &str) -> Result<Self, ResourcePathError> {
        let good = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
                && part.bytes().any(|b| b != b'.')
        };
        let ok = text.len() <= MAX_PATH && text.split('/').count() == 3 && text.split('/').all(good);
        ok.then(|| Self(text.to_owned())).ok_or(ResourcePathError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_plain_words_and_nothing_that_climbs() {
        assert!("default/key/one".parse::<ResourcePath>().is_ok());
        assert!("golden/dsse/v1.2_x-y".parse::<ResourcePath>().is_ok());
        for bad in
            ["", "a", "a/b", "a/b/c/d", "/a/b/c", "a//c", "a/b/", "a/../c", "a/./c", "a/b/%2e", "a/b/c?d", "a/b/ä"]
        {
            assert_eq!(bad.parse::<ResourcePath>(), Err(ResourcePathError), "{bad}");
        }
        assert_eq!(format!("a/b/{}", "c".repeat(MAX_PATH)).parse::<ResourcePath>(), Err(ResourcePathError));
    }
}
