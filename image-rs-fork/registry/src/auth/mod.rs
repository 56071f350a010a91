//! Credentials: docker-style auth files, credential helpers and `WWW-Authenticate` challenges, read strictly.

pub(crate) mod credentials;
pub(crate) mod helper;

use std::collections::BTreeMap;
use std::fmt;

use protocols::encoding;
use serde::Deserialize;

use self::helper::HelperName;
pub use self::helper::{MAX_HELPER_OUTPUT, parse_helper_output};

/// The largest auth file we read, in bytes.
pub const MAX_AUTH_FILE: usize = 1024 * 1024;
/// The longest `WWW-Authenticate` header we read, in bytes.
pub const MAX_CHALLENGE: usize = 4096;

/// An auth file or challenge that does not follow its format. Says nothing of what it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(String);

/// What a registry is shown. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password, for basic authentication and token servers.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth 2 refresh token, shown to token servers only.
    Identity(String),
    /// A bearer token for the registry itself.
    Bearer(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::Identity(_) => "Identity(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// Credentials by registry, as `docker login`, `podman login` and `skopeo login` write them.
#[derive(Debug, Clone, Default)]
pub struct AuthFile {
    entries: BTreeMap<String, Credential>,
    /// `credHelpers`: the helper that knows about one host.
    helpers: BTreeMap<String, HelperName>,
    /// `credsStore`: the helper for hosts without an entry.
    store: Option<HelperName>,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    auths: BTreeMap<String, RawEntry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
struct RawEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl AuthFile {
    /// Reads `{"auths": {"host[:port][/repository]": {"auth": base64("user:password")}}}`; instead of
    /// `auth` an entry may have `username` and `password`, `identitytoken` or `registrytoken`; an entry
    /// without any credential counts as none. `credHelpers` and `credsStore` name helpers; members that
    /// say nothing about credentials are passed over.
    ///
    /// # Errors
    /// [`AuthError`] for anything else, above [`MAX_AUTH_FILE`], and for two entries of one host.
    pub fn parse(bytes: &[u8]) -> Result<Self, AuthError> {
        if bytes.len() > MAX_AUTH_FILE {
            return Err(AuthError(format!("the auth file is larger than {MAX_AUTH_FILE} bytes")));
        }
        // serde_json's message can quote the file: give its place only.
        let raw: RawFile = serde_json::from_slice(bytes).map_err(|e| {
            AuthError(format!("the auth file is not of docker's form (line {}, column {})", e.line(), e.column()))
        })?;
        let mut entries = BTreeMap::new();
        for (key, entry) in raw.auths {
            let Some(credential) =
                credential(entry).map_err(|problem| AuthError(format!("auths.{key:?}: {problem}")))?
            else {
                continue;
            };
            if entries.insert(normal_key(&key), credential).is_some() {
                return Err(AuthError(format!("two entries for {:?}", normal_key(&key))));
            }
        }
        let mut helpers = BTreeMap::new();
        for (host, name) in raw.helpers {
            if helpers.insert(normal_key(&host), HelperName::new(&name)?).is_some() {
                return Err(AuthError(format!("two credential helpers for {:?}", normal_key(&host))));
            }
        }
        let store = raw.store.filter(|name| !name.is_empty());
        Ok(Self { entries, helpers, store: store.as_deref().map(HelperName::new).transpose()? })
    }

    /// The helper that alone knows about `host`.
    pub(crate) fn helper(&self, host: &str) -> Option<&HelperName> {
        self.helpers.get(host)
    }

    /// The helper for hosts without an entry.
    pub(crate) const fn store(&self) -> Option<&HelperName> {
        self.store.as_ref()
    }

    /// The credential for a repository: the entry with the longest `host[:port]/path` that leads to it.
    #[must_use]
    pub fn credential(&self, host: &str, repository: &str) -> Option<&Credential> {
        let mut key = format!("{host}/{repository}");
        loop {
            if let Some(credential) = self.entries.get(&key) {
                return Some(credential);
            }
            key.truncate(key.rfind('/')?);
        }
    }
}

/// Docker writes `https://index.docker.io/v1/` for `docker.io`, and some tools write a scheme elsewhere.
fn normal_key(key: &str) -> String {
    let had_scheme = key.starts_with("https://") || key.starts_with("http://");
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = if had_scheme { key.split('/').next().unwrap_or(key) } else { key };
    let key = key.trim_end_matches('/');
    if matches!(key, "index.docker.io" | "registry-1.docker.io") { "docker.io".to_owned() } else { key.to_owned() }
}

fn credential(entry: RawEntry) -> Result<Option<Credential>, &'static str> {
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = filled(entry.registrytoken) {
        return Ok(Some(Credential::Bearer(token)));
    }
    if let Some(token) = filled(entry.identitytoken) {
        return Ok(Some(Credential::Identity(token)));
    }
    if let Some(auth) = filled(entry.auth) {
        let bytes = encoding::un_b64(&auth).map_err(|_| "auth is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "auth is not UTF-8")?;
        let (username, password) = text.split_once(':').ok_or("auth is not user:password")?;
        return Ok(Some(Credential::Basic { username: username.to_owned(), password: password.to_owned() }));
    }
    match (filled(entry.username), entry.password) {
        (Some(username), Some(password)) => Ok(Some(Credential::Basic { username, password })),
        (None, None) => Ok(None),
        _ => Err("username without password, or the reverse"),
    }
}

/// One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`, …
    pub scheme: String,
    /// Parameters by lower-case name.
    pub parameters: BTreeMap<String, String>,
}

/// Reads the challenges of one header, in order.
///
/// # Errors
/// [`AuthError`] when it does not follow the grammar, names a parameter twice or is above
/// [`MAX_CHALLENGE`].
pub fn parse_challenges(header: &str) -> Result<Vec<Challenge>, AuthError> {
    let bad = |problem: &str| AuthError(format!("WWW-Authenticate: {problem}"));
    if header.len() > MAX_CHALLENGE {
        return Err(bad("longer than 4096 bytes"));
    }
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = token(rest).ok_or_else(|| bad("a word is missing"))?;
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match value {
            None => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
                rest = after;
            }
            Some(value) => {
                let challenge = challenges.last_mut().ok_or_else(|| bad("a parameter before any scheme"))?;
                let value = value.trim_start_matches([' ', '\t']);
                let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
                    unquote(quoted).ok_or_else(|| bad("a quote is not closed"))?
                } else {
                    token(value)
                        .map(|(value, after)| (value.to_owned(), after))
                        .ok_or_else(|| bad("a value is missing"))?
                };
                if challenge.parameters.insert(word.to_ascii_lowercase(), value).is_some() {
                    return Err(bad("a parameter is named twice"));
                }
                let after = after.trim_start_matches([' ', '\t']);
                if !after.is_empty() && !after.starts_with(',') {
                    return Err(bad("no comma after a parameter"));
                }
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    Ok(challenges)
}

/// Splits a token (RFC 9110, 5.6.2) off the front.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

/// Reads a quoted string after its opening quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, text.get(at.saturating_add(1)..)?)),
            '\\' => out.push(chars.next()?.1),
            c if c.is_control() => return None,
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> AuthFile {
        AuthFile::parse(json.as_bytes()).unwrap()
    }

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn finds_the_entry_closest_to_the_repository() {
        let file = file(
            r#"{"auths":{"r.example:5000":{"auth":"dTpwOng="},"r.example:5000/team":{"username":"t","password":""},
                "other.example":{}}, "credsStore":"secretservice"}"#,
        );
        assert_eq!(file.credential("r.example:5000", "app"), Some(&basic("u", "p:x")), "a password may hold colons");
        assert_eq!(file.credential("r.example:5000", "team/app"), Some(&basic("t", "")));
        assert_eq!(file.credential("r.example:5000", "teamwork/app"), Some(&basic("u", "p:x")), "not a path prefix");
        assert_eq!(file.credential("r.example", "app"), None, "the port is part of the host");
        assert_eq!(file.credential("other.example", "app"), None);
        assert_eq!(file.credential("evil.r.example:5000", "app"), None);
    }

    #[test]
    fn reads_dockers_own_key_and_tokens() {
        let file = file(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw","identitytoken":"refresh"},
                "https://x.example":{"registrytoken":"bearer"}}}"#,
        );
        assert_eq!(file.credential("docker.io", "library/app"), Some(&Credential::Identity("refresh".to_owned())));
        assert_eq!(file.credential("x.example", "a"), Some(&Credential::Bearer("bearer".to_owned())));
    }

    #[test]
    fn refuses_broken_entries_without_showing_them() {
        for json in [
            r#"{"auths":{"h.example":{"auth":"secret!"}}}"#,
            r#"{"auths":{"h.example":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"h.example":{"username":"secret"}}}"#,
            r#"{"auths":{"h.example":{"auth":{"secret":1}}}}"#,
            r#"{"auths":{"h.example":{"auth":"dTpw"},"https://h.example":{"auth":"dTpw"}}}"#,
        ] {
            let error = AuthFile::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(
            !format!("{:?}", file(r#"{"auths":{"h.example":{"auth":"dTpw"}}}"#))
                .contains('p'.to_string().as_str().repeat(2).as_str())
        );
    }

    #[test]
    fn reads_challenges_of_several_schemes() {
        let header = r#"Bearer realm="https://auth.example/token?a=\"1\"",service="registry, two" , scope=pull, Basic realm="x""#;
        let challenges = parse_challenges(header).unwrap();
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].scheme, "bearer");
        assert_eq!(challenges[0].parameters["realm"], r#"https://auth.example/token?a="1""#);
        assert_eq!(challenges[0].parameters["service"], "registry, two");
        assert_eq!(challenges[0].parameters["scope"], "pull");
        assert_eq!(challenges[1].scheme, "basic");
        assert_eq!(parse_challenges("Negotiate").unwrap()[0].parameters.len(), 0);
    }

    #[test]
    fn refuses_challenges_off_the_grammar() {
        for header in [
            r#"realm="x""#,
            r#"Bearer realm="x"#,
            r#"Bearer realm="x",realm="y""#,
            r#"Bearer realm="x" service="y""#,
            "Bearer realm=",
            "Bearer realm=\"a\nb\"",
            "Bearer é=1",
            &"a".repeat(MAX_CHALLENGE + 1),
        ] {
            assert!(parse_challenges(header).is_err(), "{header}");
        }
    }
}
