//! `registries.d`: where the OpenPGP signatures of a repository's images lie.
//!
//! The terms are those of containers-registries.d(5), in JSON, which its readers take as well. It is one text and not
//! a directory, so that it is measured with the configuration it stands in.

use std::fmt;
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use reqwest::Url;
use serde::Deserialize;

use crate::reference::{Repository, check_host};

/// The largest text we read, in bytes.
pub const MAX_REGISTRIES_D: usize = 1024 * 1024;

/// A text that does not follow the format, or asks for what is not done here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("registries.d: {0}")]
pub struct RegistriesDError(String);

/// A checked `registries.d`. The empty one names no place at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct RegistriesD {
    default: Option<Lookaside>,
    /// By namespace; the order is the text's.
    docker: Vec<(String, Lookaside)>,
}

/// A place with signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookaside {
    /// `file:///…`
    Directory(PathBuf),
    /// `http[s]://…`, asked without credentials.
    Http(Url),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    default_docker: Option<RawNamespace>,
    #[serde(default)]
    docker: Members,
}

/// The last two are for writing; a second name is the older one of the same member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawNamespace {
    lookaside: Option<String>,
    sigstore: Option<String>,
    use_sigstore_attachments: Option<bool>,
    #[serde(rename = "lookaside-staging")]
    _lookaside_staging: Option<String>,
    #[serde(rename = "sigstore-staging")]
    _sigstore_staging: Option<String>,
}

/// An object's members as written, so that one that is there twice is seen.
#[derive(Default)]
struct Members(Vec<(String, RawNamespace)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn refused(problem: impl fmt::Display) -> RegistriesDError {
    RegistriesDError(problem.to_string())
}

impl TryFrom<String> for RegistriesD {
    type Error = RegistriesDError;

    fn try_from(text: String) -> Result<Self, RegistriesDError> {
        Self::parse(&text)
    }
}

impl RegistriesD {
    /// Reads the JSON form of a `registries.d` file.
    ///
    /// # Errors
    /// [`RegistriesDError`] for other JSON, above [`MAX_REGISTRIES_D`], and for entries that contradict each other or
    /// that no image falls under.
    pub fn parse(text: &str) -> Result<Self, RegistriesDError> {
        if text.len() > MAX_REGISTRIES_D {
            return Err(refused(format!("larger than {MAX_REGISTRIES_D} bytes")));
        }
        let raw: Raw = serde_json::from_str(text).map_err(refused)?;
        let default = raw.default_docker.map(|raw| Lookaside::of("default-docker", raw)).transpose()?.flatten();
        let mut docker: Vec<(String, Lookaside)> = Vec::new();
        for (written, raw) in raw.docker.0 {
            let namespace = namespace(&written)?;
            if docker.iter().any(|(known, _)| *known == namespace) {
                return Err(refused(format!("{written} is there twice")));
            }
            // As other readers have it, a namespace that names no place leaves the question to a wider one.
            if let Some(place) = Lookaside::of(&written, raw)? {
                docker.push((namespace, place));
            }
        }
        Ok(Self { default, docker })
    }

    /// The place of the most specific namespace `repository` falls under.
    pub(crate) fn place(&self, repository: &Repository) -> Option<&Lookaside> {
        let named = |name: &str| self.docker.iter().find(|(known, _)| known == name).map(|(_, place)| place);
        let host = repository.host().to_ascii_lowercase();
        let full = format!("{host}/{}", repository.full_name());
        let mut rest = full.as_str();
        loop {
            if let Some(place) = named(rest) {
                return Some(place);
            }
            let Some((parent, _)) = rest.rsplit_once('/') else { break };
            rest = parent;
        }
        let mut domain = host.split(':').next().filter(|_| !host.starts_with('['));
        while let Some((_, parent)) = domain.and_then(|domain| domain.split_once('.')) {
            if let Some(place) = named(&format!("*.{parent}")) {
                return Some(place);
            }
            domain = Some(parent);
        }
        self.default.as_ref()
    }

    /// The hosts that are asked over plain HTTP.
    pub(crate) fn plain_http(&self) -> impl Iterator<Item = String> {
        let all = self.docker.iter().map(|(_, place)| place).chain(&self.default);
        all.filter_map(|place| match place {
            Lookaside::Http(url) if url.scheme() == "http" => Some(crate::http::host_of(url)),
            _ => None,
        })
    }
}

impl Lookaside {
    fn of(namespace: &str, raw: RawNamespace) -> Result<Option<Self>, RegistriesDError> {
        if raw.use_sigstore_attachments == Some(false) {
            return Err(refused(format!("{namespace}: sigstore attachments are always looked at")));
        }
        match (raw.lookaside, raw.sigstore) {
            (Some(_), Some(_)) => {
                Err(refused(format!("{namespace}: lookaside and sigstore are two names of one member")))
            }
            (None, None) => Ok(None),
            (Some(text), None) | (None, Some(text)) => Self::new(&text).map(Some),
        }
    }

    fn new(text: &str) -> Result<Self, RegistriesDError> {
        let bad = |problem: &str| refused(format!("{text:?} {problem}"));
        let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(bad("has more than scheme, host and path"));
        }
        match url.scheme() {
            "https" | "http" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(Self::Http(url)),
            "file" if url.host_str().is_none() => {
                url.to_file_path().map(Self::Directory).map_err(|()| bad("is no absolute path"))
            }
            _ => Err(bad("is neither file:///, http:// nor https://")),
        }
    }

    /// Where the `number`th signature of `digest` lies, counted from one: without the registry's host, as the
    /// format has it.
    pub(crate) fn signature(&self, repository: &Repository, digest: &Sha256Digest, number: usize) -> Self {
        let below = format!("{}@sha256={}/signature-{number}", repository.full_name(), digest.hex());
        match self {
            Self::Directory(dir) => Self::Directory(dir.join(Path::new(&below))),
            Self::Http(url) => {
                let mut url = url.clone();
                url.set_path(&format!("{}/{below}", url.path().trim_end_matches('/')));
                Self::Http(url)
            }
        }
    }
}

impl fmt::Display for Lookaside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::Http(url) => write!(f, "{url}"),
        }
    }
}

/// A namespace in the form it is looked up by.
fn namespace(text: &str) -> Result<String, RegistriesDError> {
    let bad = || refused(format!("{text:?} is neither host[:port][/path] nor *.domain"));
    if let Some(domain) = text.strip_prefix("*.") {
        let good = !domain.contains([':', '/']) && check_host(&format!("x.{domain}")).is_ok();
        return if good { Ok(text.to_ascii_lowercase()) } else { Err(bad()) };
    }
    let below = format!("{text}/x").parse::<Repository>().map_err(|_| bad())?;
    let name = below.full_name();
    let path = name.strip_suffix("/x").map(|path| format!("/{path}")).unwrap_or_default();
    // `docker.io/x` is written out as `docker.io/library/x`, which is not meant by `docker.io`.
    let path = if text.contains('/') { path } else { String::new() };
    Ok(format!("{}{path}", below.host().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests;
