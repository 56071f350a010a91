//! Which name a signature must carry (`signedIdentity`).

use std::fmt;

use serde::Deserialize;

use super::scope::{Name, namespace};

/// `signedIdentity` as it is written.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum IdentityFile {
    MatchExact {},
    MatchRepoDigestOrExact {},
    MatchRepository {},
    ExactReference { docker_reference: String },
    ExactRepository { docker_repository: String },
    RemapIdentity { prefix: String, signed_prefix: String },
    MatchDigest {},
}

/// Which name a signature must carry for the image it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignedIdentity {
    /// The image's own, tag or digest included.
    Exact,
    /// The image's own where it is asked for by tag, else any name in its repository.
    RepoDigestOrExact,
    /// Any name in the image's repository.
    Repository,
    /// This name, whatever the image is asked for by.
    ExactReference(Name),
    /// Any name in this repository.
    ExactRepository(String),
    /// As `RepoDigestOrExact`, with the beginning of the image's name replaced first.
    Remap { prefix: String, signed_prefix: String },
    /// Any name or none: the signature speaks of the image's digest alone. Ours; no other tool knows it.
    Digest,
}

impl SignedIdentity {
    /// Checks what is written.
    pub(super) fn of(file: Option<IdentityFile>) -> Result<Self, String> {
        let prefix = |text: &str| namespace(text).ok_or_else(|| format!("`{text}` is neither host nor repository"));
        Ok(match file {
            None | Some(IdentityFile::MatchRepoDigestOrExact {}) => Self::RepoDigestOrExact,
            Some(IdentityFile::MatchExact {}) => Self::Exact,
            Some(IdentityFile::MatchRepository {}) => Self::Repository,
            Some(IdentityFile::ExactReference { docker_reference: text }) => {
                let name = Name::parse(&text).filter(|name| !name.is_bare());
                Self::ExactReference(name.ok_or_else(|| format!("`{text}` names no tag and no digest"))?)
            }
            Some(IdentityFile::ExactRepository { docker_repository: text }) => {
                let name = Name::parse(&text).filter(Name::is_bare);
                Self::ExactRepository(name.ok_or_else(|| format!("`{text}` is no repository"))?.repository)
            }
            Some(IdentityFile::RemapIdentity { prefix: from, signed_prefix: to }) => {
                Self::Remap { prefix: prefix(&from)?, signed_prefix: prefix(&to)? }
            }
            Some(IdentityFile::MatchDigest {}) => Self::Digest,
        })
    }

    /// Whether a signature that names nothing would do.
    pub(super) fn is_any(&self) -> bool {
        *self == Self::Digest
    }

    /// Whether a signature that carries the name `signed` speaks of the image asked for as `image`.
    pub(super) fn accepts(&self, image: &Name, signed: Option<&str>) -> bool {
        if *self == Self::Digest {
            return true;
        }
        let Some(signed) = signed.and_then(Name::parse) else { return false };
        match self {
            Self::Digest => true,
            Self::Exact => same_tag(image, &signed) || (!image.is_bare() && signed == *image),
            Self::RepoDigestOrExact => repo_digest_or_exact(image, &signed),
            Self::Repository => signed.repository == image.repository,
            Self::ExactReference(name) => signed == *name,
            Self::ExactRepository(repository) => signed.repository == *repository,
            Self::Remap { prefix, signed_prefix } => {
                let repository = match image.repository.strip_prefix(prefix.as_str()) {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{signed_prefix}{rest}"),
                    _ => image.repository.clone(),
                };
                repo_digest_or_exact(&Name { repository, ..image.clone() }, &signed)
            }
        }
    }
}

impl fmt::Display for SignedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("signed as exactly this image"),
            Self::RepoDigestOrExact => f.write_str("signed with this tag (by digest: with any in this repository)"),
            Self::Repository => f.write_str("signed as of this repository"),
            Self::ExactReference(name) => write!(f, "signed as {name}"),
            Self::ExactRepository(repository) => write!(f, "signed as of {repository}"),
            Self::Remap { prefix, signed_prefix } => write!(f, "signed as of {signed_prefix} for {prefix}"),
            Self::Digest => f.write_str("signed by any name"),
        }
    }
}

fn repo_digest_or_exact(image: &Name, signed: &Name) -> bool {
    if signed.is_bare() {
        return false;
    }
    match (&image.tag, &image.digest) {
        (Some(_), _) => same_tag(image, signed),
        (None, Some(_)) => signed.repository == image.repository,
        (None, None) => false,
    }
}

/// The same repository and tag. A digest beside the image's tag is compared with the image's bytes anyway, so that
/// the signature need not name it.
fn same_tag(image: &Name, signed: &Name) -> bool {
    image.tag.is_some()
        && signed.tag == image.tag
        && signed.repository == image.repository
        && (signed.digest.is_none() || signed.digest == image.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn identity(json: &str) -> SignedIdentity {
        SignedIdentity::of(Some(serde_json::from_str(json).unwrap())).unwrap()
    }

    #[track_caller]
    fn check(identity: &SignedIdentity, image: &str, signed: &str, expected: bool) {
        assert_eq!(
            identity.accepts(&Name::parse(image).unwrap(), Some(signed)),
            expected,
            "{image} signed as {signed}"
        );
    }

    #[test]
    fn every_form_takes_exactly_the_names_the_manual_says() {
        let by_digest = format!("h.example/app@{DIGEST}");
        let exact = identity(r#"{"type":"matchExact"}"#);
        check(&exact, "h.example/app:v1", "h.example/app:v1", true);
        check(&exact, "h.example/app:v1", "h.example/app:v2", false);
        check(&exact, "h.example/app:v1", "h.example/app", false);
        check(&exact, &by_digest, "h.example/app:v1", false);
        check(&exact, &by_digest, &by_digest, true);
        check(&exact, &format!("h.example/app:v1@{DIGEST}"), "h.example/app:v1", true);
        check(&exact, &format!("h.example/app:v1@{DIGEST}"), "h.example/app:v2", false);
        check(&exact, "h.example/app:v1", &format!("h.example/app:v1@{DIGEST}"), false);

        let default = SignedIdentity::of(None).unwrap();
        assert_eq!(default, identity(r#"{"type":"matchRepoDigestOrExact"}"#));
        check(&default, "h.example/app:v1", "h.example/app:v1", true);
        check(&default, "h.example/app:v1", "h.example/app:latest", false);
        check(&default, "h.example/app:v1", "h.example/app", false);
        check(&default, &by_digest, "h.example/app:v1", true);
        check(&default, &by_digest, "h.example/other:v1", false);
        check(&default, &by_digest, "h.example/app", false);
        check(&default, &format!("h.example/app:v1@{DIGEST}"), "h.example/app:v1", true);
        check(&default, &format!("h.example/app:v1@{DIGEST}"), "h.example/app:v2", false);

        let repository = identity(r#"{"type":"matchRepository"}"#);
        check(&repository, "h.example/app:v1", "h.example/app", true);
        check(&repository, "h.example/app:v1", "h.example/app:v2", true);
        check(&repository, "h.example/app:v1", "h.example/app2:v1", false);
        check(&repository, "h.example/app:v1", "app:v1", false);

        let reference = identity(r#"{"type":"exactReference","dockerReference":"public.example/app:v1"}"#);
        check(&reference, "mirror.example/app:x", "public.example/app:v1", true);
        check(&reference, "mirror.example/app:x", "mirror.example/app:x", false);

        let one = identity(r#"{"type":"exactRepository","dockerRepository":"public.example/app"}"#);
        check(&one, "mirror.example/app:x", "public.example/app:v2", true);
        check(&one, "mirror.example/app:x", "public.example/app2", false);

        let remap = identity(r#"{"type":"remapIdentity","prefix":"m.example:5000/v","signedPrefix":"vendor.example"}"#);
        check(&remap, "m.example:5000/v/p/i:1", "vendor.example/p/i:1", true);
        check(&remap, "m.example:5000/v/p/i:1", "vendor.example/p/i:2", false);
        check(&remap, "m.example:5000/vv/p/i:1", "vendor.examplev/p/i:1", false);
        check(&remap, "m.example:5000/vv/p/i:1", "m.example:5000/vv/p/i:1", true);

        let digest = identity(r#"{"type":"matchDigest"}"#);
        check(&digest, "h.example/app:v1", "any text", true);
        assert!(digest.accepts(&Name::parse("h.example/app:v1").unwrap(), None));
        assert!(!repository.accepts(&Name::parse("h.example/app:v1").unwrap(), None));
    }

    #[test]
    fn a_form_with_more_or_less_than_its_members_is_refused() {
        for json in [
            r#"{"type":"matchAnything"}"#,
            r#"{"type":"matchExact","prefix":"h.example"}"#,
            r#"{"type":"exactReference"}"#,
            r#"{"type":"exactReference","dockerReference":"h.example/a:1","dockerReference":"h.example/b:1"}"#,
            r#"{"type":"matchExact","type":"matchRepository"}"#,
            r#"{"type":"remapIdentity","prefix":"h.example"}"#,
            r#"{}"#,
        ] {
            assert!(serde_json::from_str::<IdentityFile>(json).is_err(), "{json}");
        }
        for json in [
            r#"{"type":"exactReference","dockerReference":"h.example/a"}"#,
            r#"{"type":"exactReference","dockerReference":"busybox:1"}"#,
            r#"{"type":"exactRepository","dockerRepository":"h.example/a:1"}"#,
            r#"{"type":"remapIdentity","prefix":"h.example/a:1","signedPrefix":"h.example"}"#,
            r#"{"type":"remapIdentity","prefix":"","signedPrefix":"h.example"}"#,
        ] {
            assert!(SignedIdentity::of(Some(serde_json::from_str(json).unwrap())).is_err(), "{json}");
        }
    }
}
