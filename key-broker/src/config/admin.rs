//! `admin_token` and `[admin]`: who administers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{ConfigError, read, read_bytes, value};
use crate::admin::{Administrators, CertificateRule, FirstToken, Named, NamedToken, Provider, Role, jwt_keys};

/// The shortest administrator's token, in characters.
const MIN_TOKEN: usize = 32;
/// The most that two clocks may be apart, in seconds.
const MAX_LEEWAY: u64 = 300;

/// `[admin]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Whether there is no administrator at all; then nothing else may stand here.
    #[serde(default)]
    pub closed: bool,
    /// Where the token of a first start is written when no administrator is configured; absent: `admin.token` beside
    /// the store.
    pub first_token: Option<PathBuf>,
    /// Named tokens.
    #[serde(default)]
    pub token: Vec<TokenConfig>,
    /// Client certificates; they need `[tls]`.
    #[serde(default)]
    pub certificate: Vec<CertificateConfig>,
    /// Identity providers.
    #[serde(default)]
    pub jwt: Vec<JwtConfig>,
}

/// `[[admin.token]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// For the log.
    pub name: String,
    /// File with the token, one line.
    pub file: Option<PathBuf>,
    /// `sha256:<hex>` of the token, in place of the file.
    pub sha256: Option<Sha256Digest>,
    /// What it may do.
    pub roles: Vec<Role>,
}

/// `[[admin.certificate]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// For the log.
    pub name: String,
    /// PEM file of the roots that may vouch for it.
    pub root: PathBuf,
    /// The certificate's whole subject, as RFC 4514 writes it.
    pub subject: Option<String>,
    /// In place of the subject: `dns:…`, `uri:…` or `email:…` among its alternative names.
    pub san: Option<String>,
    /// What it may do.
    pub roles: Vec<Role>,
}

/// `[[admin.jwt]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// `iss`, exactly.
    pub issuer: String,
    /// What `aud` must name.
    pub audience: String,
    /// The provider's JWKS (RFC 7517), JSON.
    pub keys: PathBuf,
    /// The claim that holds names of roles: its name, or a JSON pointer.
    pub role_claim: String,
    /// What these names stand for here.
    pub roles: BTreeMap<String, Vec<Role>>,
    /// How far the clocks may be apart, 0 to 300 seconds.
    pub leeway_seconds: u64,
}

impl AdminConfig {
    /// Reads every file it names. `single` is `admin_token`, `beside` the store's file where it is one.
    pub(crate) fn administrators(
        &self,
        single: Option<&Path>,
        beside: Option<&Path>,
    ) -> Result<Administrators, ConfigError> {
        let mut all = Administrators::default();
        if let Some(path) = single {
            all.tokens.push(NamedToken {
                name: "admin".to_owned(),
                hash: admin_token(path)?,
                roles: vec![Role::Admin],
            });
        }
        for token in &self.token {
            all.tokens.push(named_token(token)?);
        }
        for certificate in &self.certificate {
            all.certificates.push(rule(certificate)?);
        }
        for jwt in &self.jwt {
            all.providers.push(provider(jwt)?);
        }
        let configured = !(all.tokens.is_empty() && all.certificates.is_empty() && all.providers.is_empty());
        match (configured, self.closed, &self.first_token) {
            (true, true, _) | (_, true, Some(_)) => Err(value("admin.closed", "stands beside administrators")),
            (true, false, Some(_)) => Err(value("admin.first_token", "stands beside administrators: none is made")),
            (true, false, None) | (false, true, None) => Ok(all),
            (false, false, path) => {
                let beside = || beside.map(|file| file.with_file_name("admin.token"));
                let path = path.clone().or_else(beside).ok_or_else(|| {
                    value("admin", "names nobody: with a database for a store, name administrators or first_token")
                })?;
                let first = FirstToken::at(path);
                all.tokens.extend(first.made()?);
                all.first = Some(first);
                Ok(all)
            }
        }
    }
}

fn held(field: &'static str, name: &str, roles: &[Role]) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(value(field, "needs a name of 1 to 64 printable characters"));
    }
    if roles.is_empty() {
        return Err(value(field, format!("{name} has no role")));
    }
    Ok(())
}

fn named_token(config: &TokenConfig) -> Result<NamedToken, ConfigError> {
    held("admin.token", &config.name, &config.roles)?;
    let hash = match (&config.file, &config.sha256) {
        (Some(file), None) => admin_token(file)?,
        (None, Some(hash)) => *hash,
        _ => return Err(value("admin.token", format!("{} needs file or sha256, and one of them", config.name))),
    };
    Ok(NamedToken { name: config.name.clone(), hash, roles: config.roles.clone() })
}

fn rule(config: &CertificateConfig) -> Result<CertificateRule, ConfigError> {
    const FIELD: &str = "admin.certificate";
    held(FIELD, &config.name, &config.roles)?;
    let named = match (&config.subject, config.san.as_deref().map(|san| san.split_once(':'))) {
        (Some(subject), None) => Named::Subject(subject.clone()),
        (None, Some(Some(("dns", name)))) => Named::Dns(name.to_owned()),
        (None, Some(Some(("uri", name)))) => Named::Uri(name.to_owned()),
        (None, Some(Some(("email", name)))) => Named::Email(name.to_owned()),
        _ => return Err(value(FIELD, "needs subject or san, and one of them; san is dns:…, uri:… or email:…")),
    };
    let pem = read_bytes(&config.root)?;
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let roots = roots.map_err(|_| value(FIELD, format!("{}: not PEM certificates", config.root.display())))?;
    CertificateRule::new(config.name.clone(), roots, named, config.roles.clone()).map_err(|what| value(FIELD, what))
}

fn provider(config: &JwtConfig) -> Result<Provider, ConfigError> {
    const FIELD: &str = "admin.jwt";
    if [&config.issuer, &config.audience, &config.role_claim].into_iter().any(String::is_empty) {
        return Err(value(FIELD, "issuer, audience and role_claim must not be empty"));
    }
    if config.roles.values().all(Vec::is_empty) {
        return Err(value(FIELD, "roles gives no role to anybody"));
    }
    if config.leeway_seconds > MAX_LEEWAY {
        return Err(value(FIELD, "leeway_seconds must be from 0 to 300"));
    }
    let keys = jwt_keys(&read_bytes(&config.keys)?);
    let role_claim = match config.role_claim.strip_prefix('/') {
        Some(_) => config.role_claim.clone(),
        None => format!("/{}", config.role_claim.replace('~', "~0").replace('/', "~1")),
    };
    Ok(Provider {
        issuer: config.issuer.clone(),
        audience: config.audience.clone(),
        keys: keys.map_err(|what| value(FIELD, format!("{}: {what}", config.keys.display())))?,
        role_claim,
        roles: config.roles.clone(),
        leeway: config.leeway_seconds,
    })
}

/// Reads a token's file and gives the token's hash.
pub(crate) fn admin_token(path: &Path) -> Result<Sha256Digest, ConfigError> {
    let text = Zeroizing::new(read(path)?);
    let token = text.trim();
    if token.len() < MIN_TOKEN || !token.bytes().all(|b| (0x20..=0x7E).contains(&b)) {
        return Err(value("admin_token", "must be one line of at least 32 printable ASCII characters"));
    }
    Ok(Sha256Digest::of(token.as_bytes()))
}
