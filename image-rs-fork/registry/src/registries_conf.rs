//! `registries.conf` (version 2): where the images of a repository are really fetched from.
//!
//! The terms are those of containers-registries.conf(5); where they leave room, the narrower reading holds:
//! an unknown key is an error, and a mirror answers for a tag only where its entry says so.

use std::fmt;

use serde::Deserialize;

use crate::auth::helper::HelperName;
use crate::error::RegistryError;
use crate::reference::{Repository, check_host};

/// The largest file we read, in bytes.
pub const MAX_REGISTRIES_CONF: usize = 1024 * 1024;
/// The most `[[registry]]` tables, and the most mirrors of one.
const MAX_RULES: usize = 1024;
const MAX_MIRRORS: usize = 16;

/// A file that does not follow the format, or asks for what is not done here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("registries.conf: {0}")]
pub struct RegistriesConfError(String);

/// A checked `registries.conf`. The empty one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct RegistriesConf {
    rules: Vec<Rule>,
    /// `None`: the auth file alone.
    helpers: Option<Vec<CredentialSource>>,
}

/// Where credentials are looked for, in the order of `credential-helpers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CredentialSource {
    /// `containers-auth.json`: the auth file.
    AuthFile,
    /// `docker-credential-NAME`.
    Helper(HelperName),
}

/// Whether what is asked for can be compared with a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A blob, or a manifest by digest.
    ByDigest,
    /// A manifest by tag, or a list of referrers: whoever answers decides.
    ByName,
}

/// Where to ask: the mirrors in order, then the location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) mirrors: Vec<Repository>,
    pub(crate) location: Repository,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    prefix: Prefix,
    /// `None` with a wildcard: the host stays.
    location: Option<Location>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    location: Location,
    insecure: bool,
    by_digest: bool,
    by_name: bool,
}

/// `host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Prefix {
    /// `host[:port][/path]`.
    Path(String),
    /// What stands after the `*` of `*.domain[:port]`, with its dot.
    Below(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    #[serde(default)]
    registry: Vec<RawRule>,
    credential_helpers: Option<Vec<String>>,
    // The next three say what a name without a host stands for. Such a name is refused before it gets here.
    #[serde(rename = "unqualified-search-registries")]
    _search: Option<Vec<String>>,
    short_name_mode: Option<String>,
    #[serde(rename = "aliases")]
    _aliases: Option<std::collections::BTreeMap<String, String>>,
    /// The first version's table.
    registries: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRule {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<RawMirror>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

fn refused(problem: impl fmt::Display) -> RegistriesConfError {
    RegistriesConfError(problem.to_string())
}

impl TryFrom<String> for RegistriesConf {
    type Error = RegistriesConfError;

    fn try_from(text: String) -> Result<Self, RegistriesConfError> {
        Self::parse(&text)
    }
}

impl RegistriesConf {
    /// Reads the TOML of a `registries.conf`.
    ///
    /// # Errors
    /// [`RegistriesConfError`] for other TOML, above [`MAX_REGISTRIES_CONF`], and for entries that contradict
    /// each other or cannot be kept exactly.
    pub fn parse(text: &str) -> Result<Self, RegistriesConfError> {
        if text.len() > MAX_REGISTRIES_CONF {
            return Err(refused(format!("larger than {MAX_REGISTRIES_CONF} bytes")));
        }
        let raw: Raw = toml::from_str(text).map_err(|e| refused(e.to_string().trim_end()))?;
        if raw.registries.is_some() {
            return Err(refused("[registries.*] is version 1 of the format: write [[registry]] tables"));
        }
        if let Some(mode) = raw.short_name_mode
            && !matches!(mode.as_str(), "enforcing" | "permissive" | "disabled")
        {
            return Err(refused(format!("short-name-mode = {mode:?} is none of enforcing, permissive, disabled")));
        }
        if raw.registry.len() > MAX_RULES {
            return Err(refused(format!("more than {MAX_RULES} [[registry]] tables")));
        }
        let rules = raw.registry.into_iter().map(Rule::new).collect::<Result<Vec<_>, _>>()?;
        for (at, rule) in rules.iter().enumerate() {
            if rules.iter().take(at).any(|earlier| earlier.prefix == rule.prefix) {
                return Err(refused(format!("two [[registry]] tables for {}", rule.prefix)));
            }
        }
        let helpers = raw.credential_helpers.map(|names| names.into_iter().map(credential_source).collect());
        let helpers = helpers.transpose()?;
        Ok(Self { rules, helpers })
    }

    /// The hosts that `insecure = true` names: they are asked over plain HTTP.
    pub(crate) fn plain_http(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|rule| {
            let own = rule.location.as_ref().filter(|_| rule.insecure);
            let mirrors = rule.mirrors.iter().filter(|mirror| mirror.insecure).map(|mirror| &mirror.location);
            own.into_iter().chain(mirrors).map(Location::host)
        })
    }

    /// Where credentials are looked for.
    pub(crate) fn credential_sources(&self) -> &[CredentialSource] {
        self.helpers.as_deref().unwrap_or(&[CredentialSource::AuthFile])
    }

    /// Where `repository` really is: what its prefix is replaced with.
    ///
    /// # Errors
    /// [`RegistryError::Blocked`]; [`RegistryError::Config`] when the location makes no repository.
    pub fn location(&self, repository: &Repository) -> Result<Repository, RegistryError> {
        self.places(repository, Asked::ByName).map(|places| places.location)
    }

    /// Where `repository` is to be asked.
    ///
    /// # Errors
    /// [`RegistryError::Blocked`]; [`RegistryError::Config`] when a location makes no repository.
    pub(crate) fn places(&self, repository: &Repository, asked: Asked) -> Result<Places, RegistryError> {
        let name = format!("{}/{}", repository.host(), repository.full_name());
        let matching = self.rules.iter().filter_map(|rule| Some((rule, rule.prefix.matched(&name)?)));
        // The longest prefix; of two equally long ones that which names the host itself.
        let best = matching.max_by_key(|(rule, _)| (rule.prefix.len(), matches!(rule.prefix, Prefix::Path(_))));
        let Some((rule, rest)) = best else {
            return Ok(Places { mirrors: Vec::new(), location: repository.clone() });
        };
        if rule.blocked {
            return Err(RegistryError::Blocked { repository: repository.to_string(), prefix: rule.prefix.to_string() });
        }
        let wanted = rule.mirrors.iter().filter(|mirror| match asked {
            Asked::ByDigest => mirror.by_digest,
            Asked::ByName => mirror.by_name,
        });
        Ok(Places {
            mirrors: wanted.map(|mirror| mirror.location.with(rest)).collect::<Result<_, _>>()?,
            location: rule.location.as_ref().map_or_else(|| Ok(repository.clone()), |location| location.with(rest))?,
        })
    }
}

impl Rule {
    fn new(raw: RawRule) -> Result<Self, RegistriesConfError> {
        let location = raw.location.as_deref().map(Location::new).transpose()?;
        let prefix = match raw.prefix.as_deref().filter(|prefix| !prefix.is_empty()).or(raw.location.as_deref()) {
            Some(prefix) => Prefix::new(prefix)?,
            None => return Err(refused("a [[registry]] table with neither prefix nor location")),
        };
        let wildcard = matches!(prefix, Prefix::Below(_));
        if location.is_none() && !wildcard && !raw.blocked {
            return Err(refused(format!("{prefix} has no location")));
        }
        if raw.insecure && location.is_none() {
            return Err(refused(format!(
                "insecure = true of {prefix} needs a location: plain HTTP is for exact hosts"
            )));
        }
        if raw.mirror.len() > MAX_MIRRORS {
            return Err(refused(format!("more than {MAX_MIRRORS} mirrors of {prefix}")));
        }
        let only_digest = raw.mirror_by_digest_only;
        let mirrors = raw.mirror.into_iter().map(|mirror| {
            let (by_digest, by_name) = match mirror.pull_from_mirror.as_deref() {
                Some(_) if only_digest => {
                    let problem = "has both mirror-by-digest-only and pull-from-mirror";
                    return Err(refused(format!("{prefix} {problem}")));
                }
                None | Some("digest-only") => (true, false),
                Some("all") => (true, true),
                Some("tag-only") => (false, true),
                Some(other) => {
                    let problem = "is none of all, digest-only, tag-only";
                    return Err(refused(format!("pull-from-mirror = {other:?} {problem}")));
                }
            };
            Ok(Mirror { location: Location::new(&mirror.location)?, insecure: mirror.insecure, by_digest, by_name })
        });
        let mirrors = mirrors.collect::<Result<_, _>>()?;
        Ok(Self { prefix, location, insecure: raw.insecure, blocked: raw.blocked, mirrors })
    }
}

impl Location {
    fn new(text: &str) -> Result<Self, RegistriesConfError> {
        check_path(text).map(|()| Self(text.to_owned()))
    }

    fn host(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The repository that stands at this location for what follows the prefix.
    fn with(&self, rest: &str) -> Result<Repository, RegistryError> {
        let place = format!("{}{rest}", self.0);
        place.parse().map_err(|e: crate::ReferenceError| RegistryError::Config {
            reason: format!("registries.conf leads to {place:?}: {}", e.problem),
        })
    }
}

/// `host[:port]`, or that with a repository path.
fn check_path(text: &str) -> Result<(), RegistriesConfError> {
    let good = if text.contains('/') { text.parse::<Repository>().is_ok() } else { check_host(text).is_ok() };
    if good {
        Ok(())
    } else {
        Err(refused(format!("{text:?} is not host[:port][/path], without scheme, tag and digest")))
    }
}

impl Prefix {
    fn new(text: &str) -> Result<Self, RegistriesConfError> {
        let Some(below) = text.strip_prefix('*') else { return check_path(text).map(|()| Self::Path(text.to_owned())) };
        // Any word in place of the star makes a host, or the pattern is none.
        if below.starts_with('.') && !below.contains('/') && check_host(&format!("x{below}")).is_ok() {
            Ok(Self::Below(below.to_owned()))
        } else {
            Err(refused(format!("{text:?} is not *.domain[:port]")))
        }
    }

    /// Bytes as written.
    fn len(&self) -> usize {
        match self {
            Self::Path(path) => path.len(),
            Self::Below(below) => below.len().saturating_add(1),
        }
    }

    /// What follows the prefix in `host[:port]/name`; empty, or with its slash.
    fn matched<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self {
            Self::Path(path) => {
                name.strip_prefix(path.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Below(below) => {
                let (host, rest) = name.split_at_checked(name.find('/')?)?;
                let word = host.strip_suffix(below.as_str())?;
                (!word.is_empty()).then_some(rest)
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Below(below) => write!(f, "*{below}"),
        }
    }
}

fn credential_source(name: String) -> Result<CredentialSource, RegistriesConfError> {
    if name == "containers-auth.json" {
        return Ok(CredentialSource::AuthFile);
    }
    HelperName::new(&name).map(CredentialSource::Helper).map_err(|e| refused(format!("credential-helpers: {e}")))
}

#[cfg(test)]
mod tests;
