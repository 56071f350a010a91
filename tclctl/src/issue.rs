//! From an image in a registry to the statement that is signed: the one path `measure` and `golden push` share.

use std::fs;
use std::path::Path;

use image_rs_fork::{
    ImageError, ImagePolicy, KeyProvider, Limits, MeasureOnly, MeasuredImage, NoProgress, SignaturePolicy, fetch, pull,
};
use protocols::golden::{GoldenValue, Issue, ProcessPolicy, Statement, default_series, statement_in};
use protocols::image::Platform;
use protocols::time::Timestamp;
use registry::oci::{Descriptor, DescriptorPlatform, Document};
use registry::{
    HttpRegistry, ImageReference, LayoutReference, OciLayout, RegistriesConf, RegistriesD, Registry, RegistryConfig,
    RegistryError,
};

use crate::cli::{IssueArguments, PolicyArguments, RegistryArguments, SourceArguments};
use crate::outcome::Failure;

const YEAR: u64 = 365 * 86_400;
/// The largest config we read for its platform, in bytes.
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// The part of an image's config that names its platform.
#[derive(serde::Deserialize)]
struct ConfigPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A client for the registries the arguments allow.
pub(crate) fn client(arguments: &RegistryArguments, reference: &ImageReference) -> Result<HttpRegistry, Failure> {
    // `--plain-http` without a host means the one that is asked.
    let host = |named: &String| if named.is_empty() { reference.host().to_owned() } else { named.clone() };
    let config = RegistryConfig {
        plain_http: arguments.plain_http.iter().map(host).collect(),
        auth_file: arguments.auth_file.clone(),
        roots: arguments.registry_root.clone(),
        registries_conf: arguments.registries_conf.as_deref().map(registries_conf).transpose()?.unwrap_or_default(),
        registries_d_json: arguments.registries_d.as_deref().map(registries_d).transpose()?.unwrap_or_default(),
        proxy: arguments.registry_proxy.clone(),
        credential_helper_dirs: ["/usr/local/bin", "/usr/bin"].map(Into::into).to_vec(),
        ..RegistryConfig::default()
    };
    HttpRegistry::new(config).map_err(|error| Failure::by_command(error.refusal()))
}

fn registries_conf(path: &Path) -> Result<RegistriesConf, Failure> {
    let text = fs::read_to_string(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    RegistriesConf::parse(&text).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

fn registries_d(path: &Path) -> Result<RegistriesD, Failure> {
    let text = fs::read_to_string(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    RegistriesD::parse(&text).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// The image that is meant and where its bytes are: a registry, or the layout that `oci:DIR[:NAME]` names. An
/// image in a layout takes the name `--as` gives it, which no registry has been asked about.
pub(crate) fn source(arguments: &SourceArguments) -> Result<(Box<dyn Registry>, ImageReference), Failure> {
    let SourceArguments { reference: text, named, access } = arguments;
    let Some(layout) = LayoutReference::parse(text) else {
        if named.is_some() {
            return Err(Failure::Usage("--as names an image in a layout (oci:DIR), not in a registry".to_owned()));
        }
        let reference = reference(text)?;
        return Ok((Box::new(client(&access.registry, &reference)?), reference));
    };
    let coded = |error: RegistryError| Failure::by_command(error.refusal());
    let opened = OciLayout::open(&layout.dir).map_err(coded)?;
    let found = match layout.digest {
        Some(digest) => opened.pinned(digest),
        None => opened.reference(layout.name.as_deref()),
    };
    let found = found.map_err(coded)?;
    let reference = match (named, found.digest()) {
        (Some(named), Some(digest)) => reference(named)?.pinned(*digest),
        _ => found,
    };
    Ok((Box::new(opened), reference))
}

/// The signature policy the arguments name. This machine is its operator's own, so none is needed here.
pub(crate) fn signatures(arguments: &PolicyArguments) -> Result<SignaturePolicy, Failure> {
    let Some(path) = &arguments.policy else { return Ok(SignaturePolicy::insecure_accept_anything()) };
    let bytes = fs::read(path).map_err(|error| Failure::file(path, error))?;
    SignaturePolicy::parse(&bytes).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Reads a reference.
pub(crate) fn reference(text: &str) -> Result<ImageReference, Failure> {
    text.parse::<ImageReference>().map_err(|error| Failure::Usage(error.to_string()))
}

/// One platform manifest of an image.
pub(crate) struct PlatformManifest {
    /// What was asked for, pinned to what its tag stood for: this manifest or the index that lists it.
    pub(crate) asked: ImageReference,
    /// The reference, pinned to the manifest.
    pub(crate) reference: ImageReference,
    /// The manifest's descriptor.
    pub(crate) descriptor: Descriptor,
    /// Its platform: by the index, or by its own config where the reference names a manifest itself.
    pub(crate) platform: Platform,
}

impl PlatformManifest {
    /// The platform as an index names it.
    pub(crate) fn index_platform(&self) -> Option<DescriptorPlatform> {
        let Platform { os, architecture, variant } = self.platform.clone();
        Some(DescriptorPlatform { architecture, os, variant })
    }
}

/// Every platform manifest behind a reference: itself, or those an index lists.
pub(crate) async fn manifests(
    registry: &dyn Registry,
    reference: &ImageReference,
) -> Result<Vec<PlatformManifest>, Failure> {
    let found = registry
        .manifest(reference.repository(), &reference.target())
        .await
        .map_err(|error| Failure::by_command(error.refusal()))?;
    if let Some(expected) = reference.digest().filter(|expected| **expected != found.digest) {
        let error = RegistryError::Digest {
            host: reference.host().to_owned(),
            what: format!("manifest {expected}"),
            expected: *expected,
            actual: found.digest,
        };
        return Err(Failure::by_command(error.refusal()));
    }
    let document = Document::parse(&found.bytes)
        .map_err(|error| Failure::Usage(format!("{reference} is no image manifest or index: {error}")))?;
    let index = match document {
        Document::Index(index) => index,
        Document::Manifest(manifest) => {
            let config = registry
                .small_blob(reference.repository(), &manifest.config, MAX_CONFIG)
                .await
                .map_err(|error| Failure::by_command(error.refusal()))?;
            let platform: ConfigPlatform = serde_json::from_slice(&config)
                .map_err(|error| Failure::Usage(format!("{reference}: the config names no platform: {error}")))?;
            let ConfigPlatform { os, architecture, variant } = platform;
            return Ok(vec![PlatformManifest {
                asked: reference.pinned(found.digest),
                reference: reference.pinned(found.digest),
                descriptor: found.descriptor(),
                platform: Platform { os, architecture, variant },
            }]);
        }
    };
    let mut manifests = Vec::new();
    for descriptor in index.manifests {
        let Some(platform) = descriptor.platform.as_ref() else { continue };
        // Builders list attestations of their own under this platform: no image.
        if platform.os == "unknown" {
            continue;
        }
        let platform = Platform {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
        };
        let (asked, reference) = (reference.pinned(found.digest), reference.pinned(descriptor.digest));
        manifests.push(PlatformManifest { asked, reference, descriptor, platform });
    }
    if manifests.is_empty() {
        return Err(Failure::Usage(format!("{reference} is an index without a platform manifest")));
    }
    Ok(manifests)
}

/// Measures one platform manifest: everything is streamed and checked, nothing is stored.
pub(crate) async fn measure(
    registry: &dyn Registry,
    manifest: &PlatformManifest,
    signatures: &SignaturePolicy,
    keys: &dyn KeyProvider,
) -> Result<MeasuredImage, Failure> {
    let coded = |error: ImageError| Failure::by_command(error.refusal());
    let policy = ImagePolicy::for_platform(manifest.platform.clone(), signatures.clone(), Timestamp::now());
    // By way of the index where there is one: its signature counts too.
    let fetched = fetch(&manifest.asked, registry).await.map_err(coded)?;
    let mut verified = fetched.verify(&policy, registry).await.map_err(coded)?;
    if verified.descriptor().digest != manifest.descriptor.digest {
        // The index lists this platform twice, and guests come to this manifest by its digest alone.
        let fetched = fetch(&manifest.reference, registry).await.map_err(coded)?;
        verified = fetched.verify(&policy, registry).await.map_err(coded)?;
    }
    pull(verified, registry, &MeasureOnly, keys, &Limits::default(), &NoProgress).await.map_err(coded)
}

/// The statement for a measured image.
pub(crate) fn issue(
    image: &MeasuredImage,
    issuer: &str,
    version: u64,
    arguments: &IssueArguments,
) -> Result<Statement<GoldenValue>, Failure> {
    let repository = image.reference().repository().to_string();
    let platform = &image.measurement().platform;
    let series = match (&arguments.series, image.reference().tag()) {
        (Some(series), _) => series.clone(),
        (None, Some(tag)) => default_series(&repository, platform, tag),
        (None, None) => return Err(Failure::Usage("a reference without a tag needs --series".to_owned())),
    };
    let issued_at = match &arguments.issued_at {
        Some(text) => time("--issued-at", text)?,
        None => image.created().unwrap_or(Timestamp(0)),
    };
    let expires = match (&arguments.expires, arguments.days) {
        (Some(text), _) => time("--expires", text)?,
        (None, Some(days)) => end_of_day(Timestamp::now(), days),
        (None, None) => issued_at.plus(YEAR),
    };
    let statement = statement_in(
        image.measurement(),
        image.rootfs_digests(),
        Issue {
            name: repository,
            issuer: issuer.to_owned(),
            series,
            version,
            issued_at,
            expires,
            environment: arguments.environment.into(),
            process: process(arguments)?,
        },
    );
    // What the other side would refuse to read is not signed.
    let payload = statement.payload().map_err(|error| Failure::Fault(error.to_string()))?;
    Statement::<GoldenValue>::parse(&payload).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(statement)
}

/// Reads a time.
pub(crate) fn time(option: &str, text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse(text).ok_or_else(|| {
        Failure::Usage(format!("{option} {text}: expected RFC 3339 in UTC, such as 2027-01-31T00:00:00Z"))
    })
}

/// The end of the day `days` from `now`, so that the same command gives the same bytes all day.
pub(crate) fn end_of_day(now: Timestamp, days: u64) -> Timestamp {
    let whole_days = (now.0 / 86_400).saturating_add(days).saturating_add(1);
    Timestamp(whole_days.saturating_mul(86_400)).min(Timestamp::MAX)
}

fn process(arguments: &IssueArguments) -> Result<Option<ProcessPolicy>, Failure> {
    let read = |path: &Path| {
        let text = fs::read(path).map_err(|error| Failure::file(path, error))?;
        serde_json::from_slice(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    };
    let policy: Option<ProcessPolicy> = arguments.process.as_deref().map(read).transpose()?;
    Ok(if arguments.kubernetes { Some(policy.unwrap_or_default().for_kubernetes()) } else { policy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_end_with_the_day() {
        let noon = Timestamp::parse("2026-01-02T12:00:00Z").unwrap();
        assert_eq!(end_of_day(noon, 0).to_string(), "2026-01-03T00:00:00Z");
        assert_eq!(end_of_day(noon, 30), end_of_day(noon.plus(3600), 30));
        assert_eq!(end_of_day(noon, u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn only_utc_times_are_read() {
        assert!(time("--expires", "2026-01-02T03:04:05Z").is_ok());
        assert_eq!(time("--expires", "tomorrow").unwrap_err().status(), 64);
    }
}
