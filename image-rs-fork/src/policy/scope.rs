//! Names as signatures and scopes know them, and which scopes an image falls under.

use std::fmt;

use protocols::digest::Sha256Digest;
use registry::{ImageReference, Repository};

/// A repository with a tag, a digest, both or neither, in the one form names are compared in: the host in
/// lower case, and `library/` written out on `docker.io`. Otherwise another spelling would evade a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) repository: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<Sha256Digest>,
}

impl Name {
    pub(super) fn of(reference: &ImageReference) -> Self {
        Self {
            repository: repository(reference.repository()),
            tag: reference.tag().map(str::to_owned),
            digest: reference.digest().copied(),
        }
    }

    /// Reads a fully written name; nothing is added to it, so that a bare repository stays one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(bare) = text.parse::<Repository>() {
            return Some(Self { repository: repository(&bare), tag: None, digest: None });
        }
        text.parse::<ImageReference>().ok().map(|reference| Self::of(&reference))
    }

    /// Neither tag nor digest.
    pub(super) const fn is_bare(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The scopes this name falls under, the most specific first; the transport's own default not among them.
    pub(super) fn scopes(&self) -> Vec<String> {
        let mut scopes = Vec::new();
        if let Some(digest) = &self.digest {
            scopes.push(format!("{}@{digest}", self.repository));
        }
        if let Some(tag) = &self.tag {
            scopes.push(format!("{}:{tag}", self.repository));
        }
        let mut rest = self.repository.as_str();
        scopes.push(rest.to_owned());
        while let Some((parent, _)) = rest.rsplit_once('/') {
            scopes.push(parent.to_owned());
            rest = parent;
        }
        if !rest.starts_with('[') {
            let mut domain = rest.split(':').next().unwrap_or_default();
            while let Some((_, parent)) = domain.split_once('.') {
                scopes.push(format!("*.{parent}"));
                domain = parent;
            }
        }
        scopes
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn repository(repository: &Repository) -> String {
    let (host, name) = (repository.host().to_ascii_lowercase(), repository.name());
    if host == "docker.io" && !name.contains('/') { format!("{host}/library/{name}") } else { format!("{host}/{name}") }
}

/// A host, or a host with a part of a repository's path, as names are compared; `None` for anything else.
pub(super) fn namespace(text: &str) -> Option<String> {
    let beneath = format!("{text}/x").parse::<Repository>().ok()?;
    let (host, name) = (beneath.host().to_ascii_lowercase(), beneath.name());
    Some(name.strip_suffix("/x").map_or_else(|| host.clone(), |path| format!("{host}/{path}")))
}

/// A scope of the `docker` transport in the form [`Name::scopes`] gives; `None` where no image could ever fall
/// under it, which is a slip of the pen that would leave the image to a more general rule.
pub(super) fn docker_scope(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    if let Some(domain) = text.strip_prefix("*.") {
        let host = namespace(&format!("a.{domain}"))?;
        return (!domain.contains([':', '/'])).then(|| host.replacen('a', "*", 1));
    }
    if let Some(namespace) = namespace(text) {
        return Some(namespace);
    }
    let name = Name::parse(text)?;
    // The two together are not one scope: which of them is meant?
    (name.tag.is_none() || name.digest.is_none()).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn scopes(text: &str) -> Vec<String> {
        Name::parse(text).unwrap().scopes()
    }

    #[test]
    fn from_the_image_up_to_the_top_level_domain() {
        assert_eq!(
            scopes("a.b.example:5000/ns/team/app:v1"),
            [
                "a.b.example:5000/ns/team/app:v1",
                "a.b.example:5000/ns/team/app",
                "a.b.example:5000/ns/team",
                "a.b.example:5000/ns",
                "a.b.example:5000",
                "*.b.example",
                "*.example",
            ]
        );
        assert_eq!(scopes(&format!("h.example/app@{DIGEST}"))[0], format!("h.example/app@{DIGEST}"));
        assert_eq!(scopes("[::1]:5000/app:v1"), ["[::1]:5000/app:v1", "[::1]:5000/app", "[::1]:5000"]);
    }

    #[test]
    fn another_spelling_of_a_name_evades_no_scope() {
        assert_eq!(scopes("H.Example/app:v1"), scopes("h.example/app:v1"));
        assert_eq!(scopes("docker.io/busybox:1"), scopes("docker.io/library/busybox:1"));
        assert_eq!(docker_scope("H.Example/app").unwrap(), "h.example/app");
    }

    #[test]
    fn a_scope_no_image_can_fall_under_is_refused() {
        for good in ["", "h.example", "localhost:5000", "h.example/ns/app", "h.example/app:v1", "*.example.com", "*.io"]
        {
            assert_eq!(docker_scope(good).as_deref(), Some(good));
        }
        for bad in [
            "busybox",
            "library/busybox",
            "*",
            "*example.com",
            "*.a.*.com",
            "*.example.com:5000",
            "*.example.com/app",
            "h.example/",
            "h.example/App",
            "https://h.example",
            &format!("h.example/app:v1@{DIGEST}"),
        ] {
            assert_eq!(docker_scope(bad), None, "{bad}");
        }
    }
}
