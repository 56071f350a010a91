//! Container ids: safe as a file name, a cgroup name and a word in a runtime's command line.

use std::fmt;

use crate::error::AgentError;

/// The longest id, in bytes.
pub const MAX_LEN: usize = 64;

/// A checked container id: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks a caller's id.
    ///
    /// # Errors
    /// [`AgentError::ContainerId`].
    pub fn new(text: &str) -> Result<Self, AgentError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || text.len() > MAX_LEN || !text.bytes().all(word) {
            return Err(AgentError::ContainerId { text: text.chars().take(MAX_LEN).collect() });
        }
        Ok(Self(text.to_owned()))
    }

    /// A random id of 128 bits.
    ///
    /// # Errors
    /// [`AgentError::Io`] when the system gives no randomness.
    pub fn random() -> Result<Self, AgentError> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| AgentError::Io { what: "randomness", source: std::io::Error::other(error) })?;
        Ok(Self(hex::encode(bytes)))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host name of the container: the id's first 12 characters, without a separator at its end.
    #[must_use]
    pub fn hostname(&self) -> &str {
        let cut = self.0.get(..12).unwrap_or(&self.0);
        cut.trim_end_matches(['.', '_', '-'])
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_be_paths_or_options_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-force", "_a", "a b", "a\n", "ä", "a\0", &"a".repeat(65)] {
            assert!(matches!(ContainerId::new(bad), Err(AgentError::ContainerId { .. })), "{bad:?}");
        }
        for good in ["a", "web-1", "A.b_c-9", &"a".repeat(64)] {
            assert_eq!(ContainerId::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn random_ids_are_ids_and_differ() {
        let (one, two) = (ContainerId::random().unwrap(), ContainerId::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(ContainerId::new(one.as_str()).unwrap(), one);
        assert_eq!(ContainerId::new("twelve-char-x").unwrap().hostname(), "twelve-char");
    }
}
