//! Image references: `host[:port]/repository[:tag][@sha256:…]`, in the strict grammar of the OCI
//! distribution specification. A reference without a registry host is refused: nothing is guessed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use protocols::digest::Sha256Digest;
use protocols::reason::{self, Refusal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest reference we read, in bytes.
const MAX_REFERENCE: usize = 512;
/// The longest repository name with its host, in bytes (the specification's bound).
const MAX_REPOSITORY: usize = 255;
/// The longest tag, in bytes (the specification's bound).
const MAX_TAG: usize = 128;

/// A reference that does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {problem}")]
pub struct ReferenceError {
    /// The refused text, cut at 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl ReferenceError {
    /// `image.reference`.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(reason::IMAGE_REFERENCE, &self.text, "host[:port]/repository[:tag][@sha256:…]", self.problem)
    }
}

/// A registry host and a repository's name on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    host: String,
    name: String,
}

impl Repository {
    /// `host` or `host:port`, as written.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name without the host, such as `library/busybox`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as the registry knows it: Docker Hub's single names live below `library/`.
    pub(crate) fn full_name(&self) -> Cow<'_, str> {
        if self.host == "docker.io" && !self.name.contains('/') {
            Cow::Owned(format!("library/{}", self.name))
        } else {
            Cow::Borrowed(&self.name)
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse_repository(text).map_err(|problem| refused(text, problem))
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A tag, which the registry may move at any time.
    Tag(String),
    /// The digest of the manifest's bytes.
    Digest(Sha256Digest),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

/// A parsed reference. Without tag and digest its tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Sha256Digest>,
}

impl ImageReference {
    /// Host and repository.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// `host` or `host:port`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.repository.host()
    }

    /// The tag; `latest` when neither tag nor digest was written, `None` when only a digest was.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest the manifest's bytes must have.
    #[must_use]
    pub const fn digest(&self) -> Option<&Sha256Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest where there is one, else the tag.
    #[must_use]
    pub fn target(&self) -> Target {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Target::Digest(*digest),
            (None, tag) => Target::Tag(tag.clone().unwrap_or_else(|| "latest".to_owned())),
        }
    }

    /// The same repository and tag, pinned to `digest`.
    #[must_use]
    pub fn pinned(&self, digest: Sha256Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.repository, f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| refused(text, problem))
    }
}

impl Serialize for ImageReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn refused(text: &str, problem: &'static str) -> ReferenceError {
    ReferenceError { text: text.chars().take(200).collect(), problem }
}

fn parse(text: &str) -> Result<ImageReference, &'static str> {
    if text.len() > MAX_REFERENCE {
        return Err("it is longer than 512 bytes");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| "the digest is not sha256:<64 hex>")?)),
        None => (text, None),
    };
    // The host's port has its colon before the first slash, a tag's colon comes after the last one.
    let path_start = rest.find('/').ok_or("it names no registry host")?;
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) if repository.len() > path_start => (repository, Some(parse_tag(tag)?)),
        _ => (rest, None),
    };
    let repository = parse_repository(repository)?;
    let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
    Ok(ImageReference { repository, tag, digest })
}

fn parse_repository(text: &str) -> Result<Repository, &'static str> {
    if text.len() > MAX_REPOSITORY {
        return Err("the repository is longer than 255 bytes");
    }
    let (host, name) = text.split_once('/').ok_or("it names no registry host")?;
    check_host(host)?;
    if !name.split('/').all(is_component) {
        return Err("the repository must be lower-case words joined by `.`, `_`, `__`, `-` and `/`");
    }
    Ok(Repository { host: host.to_owned(), name: name.to_owned() })
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
fn parse_tag(tag: &str) -> Result<String, &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    let first = bytes.next().is_some_and(word);
    if first && tag.len() <= MAX_TAG && bytes.all(|b| word(b) || b == b'.' || b == b'-') {
        Ok(tag.to_owned())
    } else {
        Err("the tag must be 1 to 128 of letters, digits, `_`, `.`, `-`")
    }
}

/// A host must be recognisable as one (`localhost`, a dot, a port or an IPv6 address), as clients agree.
pub(crate) fn check_host(host: &str) -> Result<(), &'static str> {
    const PROBLEM: &str = "the registry must be host[:port]";
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(PROBLEM)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| PROBLEM)?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(PROBLEM)?) };
            (None, port)
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    if let Some(port) = port {
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err("the registry's port is not 1 to 65535");
        }
    }
    let Some(name) = name else { return Ok(()) };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !name.split('.').all(label) {
        return Err(PROBLEM);
    }
    if name == "localhost" || name.contains('.') || port.is_some() { Ok(()) } else { Err("it names no registry host") }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(component: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(word) || !bytes.last().is_some_and(word) {
        return false;
    }
    let separators = bytes.split(word).filter(|separator| !separator.is_empty());
    separators.into_iter().all(|s| matches!(s, b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parsed(text: &str) -> ImageReference {
        text.parse().unwrap()
    }

    #[test]
    fn tells_host_repository_tag_and_digest_apart() {
        let reference = parsed(&format!("127.0.0.1:5000/team/my__app-x.y:v1.2_3@{DIGEST}"));
        assert_eq!(reference.host(), "127.0.0.1:5000");
        assert_eq!(reference.repository().name(), "team/my__app-x.y");
        assert_eq!(reference.tag(), Some("v1.2_3"));
        assert_eq!(reference.target(), Target::Digest(DIGEST.parse().unwrap()));
    }

    #[test]
    fn without_tag_and_digest_the_tag_is_latest() {
        assert_eq!(parsed("localhost/app").target(), Target::Tag("latest".to_owned()));
        assert_eq!(parsed(&format!("localhost/app@{DIGEST}")).tag(), None);
        assert_eq!(parsed("[::1]:5000/app:x").host(), "[::1]:5000");
    }

    #[test]
    fn refuses_what_the_grammar_does_not_have() {
        let long_tag = format!("h.example/app:{}", "a".repeat(129));
        let long_name = format!("h.example/{}", "a".repeat(256));
        for text in [
            "",
            "app",
            "app:v1",
            "library/app",
            "h.example",
            "h.example/",
            "/app",
            "h.example//app",
            "h.example/App",
            "h.example/app:",
            "h.example/app:-x",
            "h.example/app:a b",
            "h.example/app@",
            "h.example/app@sha256:00",
            "h.example/app@sha512:00",
            "h.example/.app",
            "h.example/app.",
            "h.example/a..b",
            "h.example/a___b",
            "h.example/a-_b",
            "h.example/../app",
            "h.example:0/app",
            "h.example:65536/app",
            "h.example:+80/app",
            "h..example/app",
            "-h.example/app",
            "h.example/app?x",
            "h.example/app#x",
            "user@h.example/app",
            "https://h.example/app",
            "h.example/ä",
            "[::1/app",
            "[x]:1/app",
            "h.example/app:a:b",
            "h.example/a%2fb",
            &long_tag,
            &long_name,
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
        let upper = format!("h.example/app@{}", DIGEST.to_uppercase().replace("SHA", "sha"));
        assert!(upper.parse::<ImageReference>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_is_written_back_the_same(text in ".{0,80}") {
            if let Ok(reference) = text.parse::<ImageReference>() {
                prop_assert_eq!(reference.to_string().parse::<ImageReference>().unwrap(), reference);
            }
        }

        #[test]
        fn what_the_grammar_has_parses(
            host in "(localhost|[a-z0-9]{1,8}\\.[A-Za-z0-9]{1,8})(:[1-9][0-9]{0,3})?",
            name in "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
            digest in proptest::option::of("[0-9a-f]{64}"),
        ) {
            let digest = digest.map_or(String::new(), |hex| format!("@sha256:{hex}"));
            let text = format!("{host}/{name}{tag}{digest}");
            let reference: ImageReference = text.parse().unwrap();
            prop_assert_eq!(reference.host(), host);
            prop_assert_eq!(reference.repository().name(), name);
            if !tag.is_empty() || !digest.is_empty() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
