//! The functions that read hostile bytes, each as `fn(&[u8])`: the fuzz targets in `tests/fuzz` and the
//! fixed-seed smoke test call the same. None may panic; what is accepted must satisfy the parser's promise.

mod blobs;
mod broker;
mod enrolment;
mod evidence;
mod kata;
mod platforms;
mod sandboxes;
mod signatures;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use image_rs_fork::{
    ImageError, ImagePolicy, KeyProvider as _, Limits, MeasureOnly, NoKeys, NoProgress, SignaturePolicy, WrappedKey,
    fetch, host_platform, pull,
};
use protocols::digest::Sha256Digest;
use protocols::dsse::Envelope;
use protocols::event_log;
use protocols::golden::{GoldenValue, RevocationList, Statement};
use protocols::jws;
use protocols::snp::Report;
use protocols::tcl::{RECEIPT_TYP, Receipt};
use protocols::time::Timestamp;
use protocols::tpm::{Attest, Public, Signature};
use registry::oci::Document;
use registry::{
    BlobStream, Descriptor, ImageReference, ManifestBytes, RegistriesConf, Registry, RegistryError, Repository, Target,
};
use serde_json::{Value, json};

pub use self::blobs::{agree, erofs, gzip, tar, write_erofs, zstd};
pub use self::broker::{kbs_attest, kbs_auth, kbs_cookie};
pub use self::enrolment::enrolment;
pub use self::evidence::{aael, corim, ear, tcg_log, tdx_quote};
pub use self::kata::{cgroup_files, copy_file, create_container, kata_address, kata_wire, policy};
pub use self::platforms::{azure, endorsement, metadata_service, service_answer};
pub use self::sandboxes::{interface_table, mount_options, uevent};
pub use self::signatures::{openpgp, registries_d, signature, signature_policy};

/// One entry function by name.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// As the fuzz target is called.
    pub name: &'static str,
    /// Reads hostile bytes.
    pub read: fn(&[u8]),
    /// Well-formed inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every entry function.
pub const ALL: &[Entry] = &[
    Entry { name: "event_log", read: event_log, seeds: seeds::event_logs },
    Entry { name: "golden", read: golden, seeds: seeds::envelopes },
    Entry { name: "reference", read: reference, seeds: seeds::references },
    Entry { name: "manifest", read: manifest, seeds: seeds::manifests },
    Entry { name: "auth_file", read: auth_file, seeds: seeds::auth_files },
    Entry { name: "registries_conf", read: registries_conf, seeds: seeds::registries_confs },
    Entry { name: "credential_helper", read: credential_helper, seeds: seeds::helper_outputs },
    Entry { name: "layer", read: layer, seeds: seeds::layers },
    Entry { name: "attest", read: attest, seeds: seeds::attests },
    Entry { name: "snp_report", read: snp_report, seeds: seeds::snp_reports },
    Entry { name: "azure", read: azure, seeds: platforms::seeds::azures },
    Entry { name: "endorsement", read: endorsement, seeds: platforms::seeds::endorsements },
    Entry { name: "metadata_service", read: metadata_service, seeds: platforms::seeds::metadata_answers },
    Entry { name: "service_answer", read: service_answer, seeds: platforms::seeds::service_answers },
    Entry { name: "enrolment", read: enrolment, seeds: enrolment::seeds },
    Entry { name: "tdx_quote", read: tdx_quote, seeds: evidence::tdx_quotes },
    Entry { name: "tcg_log", read: tcg_log, seeds: evidence::tcg_logs },
    Entry { name: "aael", read: aael, seeds: evidence::aaels },
    Entry { name: "corim", read: corim, seeds: evidence::corims },
    Entry { name: "ear", read: ear, seeds: evidence::ears },
    Entry { name: "encryption", read: encryption, seeds: seeds::encryptions },
    Entry { name: "jws", read: jws, seeds: seeds::tokens },
    Entry { name: "tar", read: tar, seeds: seeds::layers },
    Entry { name: "gzip", read: gzip, seeds: seeds::gzips },
    Entry { name: "zstd", read: zstd, seeds: seeds::zstds },
    Entry { name: "signature_policy", read: signature_policy, seeds: signatures::policies },
    Entry { name: "signature", read: signature, seeds: signatures::signatures },
    Entry { name: "openpgp", read: openpgp, seeds: signatures::openpgps },
    Entry { name: "registries_d", read: registries_d, seeds: signatures::registries_ds },
    Entry { name: "erofs", read: erofs, seeds: seeds::layers },
    Entry { name: "uevent", read: uevent, seeds: sandboxes::uevents },
    Entry { name: "mount_options", read: mount_options, seeds: sandboxes::options },
    Entry { name: "interface_table", read: interface_table, seeds: sandboxes::tables },
    Entry { name: "kata_wire", read: kata_wire, seeds: kata::seeds::connections },
    Entry { name: "kata_address", read: kata_address, seeds: kata::seeds::addresses },
    Entry { name: "create_container", read: create_container, seeds: kata::seeds::containers },
    Entry { name: "copy_file", read: copy_file, seeds: kata::seeds::copies },
    Entry { name: "cgroup_files", read: cgroup_files, seeds: kata::seeds::cgroups },
    Entry { name: "kbs_auth", read: kbs_auth, seeds: broker::requests },
    Entry { name: "kbs_attest", read: kbs_attest, seeds: broker::attestations },
    Entry { name: "kbs_cookie", read: kbs_cookie, seeds: broker::cookies },
    Entry { name: "policy", read: policy, seeds: kata::seeds::policies },
];

/// An event log: what parses is written back as the same bytes, and the rules never panic.
///
/// # Panics
/// When another log would mean the same.
pub fn event_log(bytes: &[u8]) {
    let Ok(records) = event_log::parse(bytes) else { return };
    let exported = event_log::export(&records);
    let stripped = exported.strip_suffix(event_log::END_MARK.as_slice()).unwrap();
    assert!(bytes == exported || bytes == stripped, "one meaning, one form");
    let _ = verifier::check_log(&records);
}

/// A DSSE envelope and the statement in it: what parses is canonical.
///
/// # Panics
/// When a statement parses from bytes that are not its payload.
pub fn golden(bytes: &[u8]) {
    let payload = Envelope::parse(bytes).map_or_else(|_| bytes.to_vec(), |envelope| envelope.payload);
    if let Ok(statement) = Statement::<GoldenValue>::parse(&payload) {
        assert_eq!(statement.payload().unwrap(), payload);
    }
    if let Ok(statement) = Statement::<RevocationList>::parse(&payload) {
        assert_eq!(statement.payload().unwrap(), payload);
    }
}

/// An image reference: what parses prints as itself, or with the tag that was left out.
///
/// # Panics
/// When it prints as something else.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(reference) = text.parse::<ImageReference>() else { return };
    let printed = reference.to_string();
    assert!(printed == text || printed == format!("{text}:latest"), "{text} prints as {printed}");
    assert_eq!(printed.parse::<ImageReference>().unwrap(), reference);
}

/// A manifest or index.
pub fn manifest(bytes: &[u8]) {
    let _ = Document::parse(bytes);
}

/// A docker-style auth file, and a challenge header.
pub fn auth_file(bytes: &[u8]) {
    if let Ok(file) = registry::auth::AuthFile::parse(bytes) {
        let _ = file.credential("127.0.0.1:5000", "app");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = registry::auth::parse_challenges(text);
    }
}

/// A `registries.conf`, and where it leads.
///
/// # Panics
/// Never by its input: the repositories asked for are well formed.
pub fn registries_conf(bytes: &[u8]) {
    let Ok(conf) = std::str::from_utf8(bytes).map_err(drop).and_then(|text| RegistriesConf::parse(text).map_err(drop))
    else {
        return;
    };
    for repository in ["r.example/team/app", "docker.io/app", "a.b.example:5000/app"] {
        let _ = conf.location(&repository.parse().unwrap());
    }
}

/// What a credential helper prints.
pub fn credential_helper(bytes: &[u8]) {
    let _ = registry::auth::parse_helper_output(bytes);
}

/// What a TPM sends: a quote, its signature, a public area.
pub fn attest(bytes: &[u8]) {
    let _ = Attest::parse(bytes);
    let _ = Signature::parse(bytes);
    let _ = Public::parse(bytes);
}

/// An SNP report, as bytes and as JSON: both forms mean the same.
///
/// # Panics
/// When a report changes on the way through JSON.
pub fn snp_report(bytes: &[u8]) {
    if let Ok(report) = Report::parse(bytes) {
        assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ = Report::from_json(&value);
}

/// An encrypted layer's annotations, and the packets in them, with keys that open the seeds.
///
/// # Panics
/// When a pull says anything else of such a layer than that it has no key or is not authentic.
pub fn encryption(bytes: &[u8]) {
    let keys = seeds::keys();
    for scheme in ["jwe", image_rs_fork::ocicrypt::ATTESTATION_AGENT] {
        let wrapped = WrappedKey { scheme: scheme.to_owned(), packet: bytes.to_vec() };
        let _ = runtime().block_on(keys.unwrap(&wrapped));
    }
    let Ok(annotations) = serde_json::from_slice::<BTreeMap<String, String>>(bytes) else { return };
    let mut layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar+encrypted", b"");
    layer.annotations = annotations;
    let image = OneLayer::with(layer, b"");
    let reference: ImageReference = "fuzz.example/app:1".parse().unwrap();
    let policy = ImagePolicy::host(SignaturePolicy::insecure_accept_anything(), Timestamp::now());
    let pulled = runtime().block_on(async {
        let verified = fetch(&reference, &image).await?.verify(&policy, &image).await?;
        pull(verified, &image, &MeasureOnly, keys, &Limits::default(), &NoProgress).await
    });
    if let Err(error) = pulled {
        assert!(matches!(error, ImageError::Key { .. } | ImageError::Decrypt { .. }), "only its encryption: {error}");
    }
}

/// A compact JWS: nothing but the key's own tokens verify, and there are none of it here.
///
/// # Panics
/// When a token verifies that the key did not sign.
pub fn jws(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(jws::verify::<Receipt>(RECEIPT_TYP, text, seeds::verifying_key()).is_err() || text == seeds::token());
}

/// A layer's tar archive, as it is and with its headers' checksums put right, through the whole pull of an
/// image that is consistent with it.
///
/// # Panics
/// When the pull says anything else about a layer than that it is bad.
pub fn layer(bytes: &[u8]) {
    pull_layer(bytes);
    let repaired = with_checksums(bytes);
    if repaired != bytes {
        pull_layer(&repaired);
    }
}

/// Without this, nearly every mutation of a header ends at its checksum.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    let mut place = 0;
    while let Some(header) = tar.get_mut(place..place + 512) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..135]).ok().and_then(|text| usize::from_str_radix(text, 8).ok());
        place = place.saturating_add(512).saturating_add(size.unwrap_or(0).next_multiple_of(512));
        if place > tar.len() {
            break;
        }
    }
    tar
}

fn pull_layer(bytes: &[u8]) {
    let image = OneLayer::new(bytes);
    let reference: ImageReference = "fuzz.example/app:1".parse().unwrap();
    let policy = ImagePolicy::host(SignaturePolicy::insecure_accept_anything(), Timestamp::now());
    let limits = Limits { image_bytes: 1 << 20, layer_bytes: 1 << 20, entries: 1000, ..Limits::default() };
    let pulled = runtime().block_on(async {
        let verified = fetch(&reference, &image).await?.verify(&policy, &image).await?;
        pull(verified, &image, &MeasureOnly, &NoKeys, &limits, &NoProgress).await
    });
    if let Err(error) = pulled {
        let expected =
            matches!(error, ImageError::LayerFormat { .. } | ImageError::Unsafe { .. } | ImageError::Limit { .. });
        assert!(expected, "a bad layer is the only thing that is wrong: {error}");
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

/// A registry in memory with one image of one uncompressed layer.
struct OneLayer {
    manifest: Bytes,
    blobs: [Bytes; 2],
}

impl OneLayer {
    fn new(tar: &[u8]) -> Self {
        Self::with(Descriptor::of("application/vnd.oci.image.layer.v1.tar", tar), tar)
    }

    /// With a descriptor of its own for the blob of what is unpacked to `tar`.
    fn with(layer: Descriptor, tar: &[u8]) -> Self {
        let platform = host_platform();
        let config = json!({
            "architecture": platform.architecture, "os": platform.os,
            "rootfs": {"type": "layers", "diff_ids": [Sha256Digest::of(tar)]},
            "config": {"Cmd": ["/bin/true"]},
        });
        let config = Bytes::from(config.to_string());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": registry::oci::MANIFEST,
            "config": Descriptor::of("application/vnd.oci.image.config.v1+json", &config),
            "layers": [layer],
        });
        Self { manifest: Bytes::from(manifest.to_string()), blobs: [config, Bytes::copy_from_slice(tar)] }
    }
}

struct Whole(Option<Bytes>);

#[async_trait]
impl BlobStream for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

#[async_trait]
impl Registry for OneLayer {
    async fn manifest(&self, _: &Repository, _: &Target) -> Result<ManifestBytes, RegistryError> {
        Ok(ManifestBytes {
            bytes: self.manifest.clone(),
            media_type: registry::oci::MANIFEST.to_owned(),
            digest: Sha256Digest::of(&self.manifest),
            claimed: None,
        })
    }

    async fn blob(&self, _: &Repository, digest: &Sha256Digest, _: u64) -> Result<Box<dyn BlobStream>, RegistryError> {
        let blob = self.blobs.iter().find(|blob| Sha256Digest::of(blob) == *digest);
        Ok(Box::new(Whole(Some(blob.unwrap().clone()))))
    }

    async fn referrers(&self, _: &Repository, _: &Sha256Digest, _: &str) -> Result<Vec<Descriptor>, RegistryError> {
        Ok(Vec::new())
    }
}

/// Well-formed inputs.
mod seeds {
    use protocols::event_log::{Record, export};
    use protocols::keys::SigningKey;
    use protocols::register::HashAlg;

    use image_rs_fork::ocicrypt::{
        DecryptionKey, KeyRing, LayerEncryptor, RecipientKey, Recipients, WrappingKey, key_id,
    };

    use super::{Envelope, OnceLock, Receipt, json};

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/vectors");

    const KEY_ID: &str = "kbs:///default/key/1";

    pub(super) fn file(name: &str) -> Vec<u8> {
        std::fs::read(format!("{DATA}/{name}")).unwrap()
    }

    pub(super) fn event_logs() -> Vec<Vec<u8>> {
        let records: Vec<Record> = (0..4)
            .map(|seq| {
                Record::encode(14, HashAlg::Sha256, "trusted-container-launcher", "Started", &json!({"seq": seq}))
                    .unwrap()
            })
            .collect();
        vec![export(&records), export(&[])]
    }

    pub(super) fn key() -> &'static SigningKey {
        static KEY: OnceLock<SigningKey> = OnceLock::new();
        // A fixed key keeps the inputs the same from run to run; it signs nothing else.
        KEY.get_or_init(|| SigningKey::EcdsaP256(p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap()))
    }

    pub(super) fn verifying_key() -> &'static p256::ecdsa::VerifyingKey {
        match key() {
            SigningKey::EcdsaP256(key) => key.verifying_key(),
            SigningKey::Ed25519(_) => unreachable!(),
        }
    }

    pub(super) fn envelopes() -> Vec<Vec<u8>> {
        let digest = "ab".repeat(32);
        let statement = json!({
            "_type": protocols::golden::STATEMENT_TYPE,
            "predicate": {
                "config": format!("sha256:{digest}"), "environment": "development", "expires": "2100-01-01T00:00:00Z",
                "issuedAt": "2026-01-01T00:00:00Z", "issuer": "release@example.com", "layers": [format!("sha256:{digest}")],
                "platform": {"architecture": "amd64", "os": "linux"},
                "process": {"args": [{"exact": ["/bin/true"]}], "cwd": [], "env": ["A=*"], "mounts": ["/m"], "user": ["u"]},
                "rootfs": {"tree-v1": format!("sha256:{digest}")}, "series": "s", "version": 3,
            },
            "predicateType": protocols::golden::PREDICATE_TYPE,
            "subject": [{"digest": {"sha256": digest}, "name": "r.example/app"}],
        });
        let payload = protocols::jcs::canonical(&statement).unwrap();
        assert!(protocols::golden::Statement::<protocols::golden::GoldenValue>::parse(&payload).is_ok());
        vec![Envelope::sign(protocols::golden::PAYLOAD_TYPE, payload.clone(), key()).to_bytes(), payload]
    }

    pub(super) fn references() -> Vec<Vec<u8>> {
        let digest = "cd".repeat(32);
        [
            "127.0.0.1:5000/app:1".to_owned(),
            format!("registry.example/team/app:v1.2@sha256:{digest}"),
            "[::1]:5000/a__b/c-d".to_owned(),
        ]
        .map(String::into_bytes)
        .to_vec()
    }

    pub(super) fn manifests() -> Vec<Vec<u8>> {
        let descriptor = json!({"mediaType": "t", "digest": format!("sha256:{}", "ef".repeat(32)), "size": 7});
        let manifest = json!({"schemaVersion": 2, "mediaType": registry::oci::MANIFEST, "config": descriptor,
            "layers": [descriptor], "subject": descriptor, "artifactType": "a"});
        let mut entry = descriptor;
        entry["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
        let index = json!({"schemaVersion": 2, "mediaType": registry::oci::INDEX, "manifests": [entry]});
        vec![manifest.to_string().into_bytes(), index.to_string().into_bytes()]
    }

    pub(super) fn auth_files() -> Vec<Vec<u8>> {
        vec![
            br#"{"auths":{"127.0.0.1:5000":{"auth":"dXNlcjpzZWNyZXQ="},"r.example":{"identitytoken":"t"}}}"#.to_vec(),
            br#"Bearer realm="https://auth.example/token",service="r",scope="repository:app:pull", Basic realm="b""#
                .to_vec(),
        ]
    }

    pub(super) fn registries_confs() -> Vec<Vec<u8>> {
        let rules = "unqualified-search-registries = [\"docker.io\"]\ncredential-helpers = [\"containers-auth.json\", \
             \"x\"]\n[[registry]]\nprefix = \"r.example/team\"\nlocation = \"in.example/t\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"m.example:5000\"\npull-from-mirror = \"all\"\n";
        let wildcard = "[[registry]]\nprefix = \"*.b.example:5000\"\nblocked = true\n[[registry]]\nlocation = \
             \"docker.io/library\"\nmirror-by-digest-only = true\n";
        vec![rules.into(), wildcard.into()]
    }

    pub(super) fn helper_outputs() -> Vec<Vec<u8>> {
        let basic = br#"{"ServerURL":"r.example","Username":"user","Secret":"s3cret"}"#;
        vec![basic.to_vec(), br#"{"Username":"<token>","Secret":"t"}"#.to_vec()]
    }

    pub(super) fn layers() -> Vec<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, kind, link, content) in [
            ("etc", tar::EntryType::Directory, "", b"".as_slice()),
            ("etc/passwd", tar::EntryType::Regular, "", b"root:x:0:0::/:/bin/sh\n"),
            ("etc/link", tar::EntryType::Symlink, "passwd", b""),
            ("etc/hard", tar::EntryType::Link, "etc/passwd", b""),
            ("etc/.wh.gone", tar::EntryType::Regular, "", b""),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            header.set_mtime(0);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            tar.append_data(&mut header, name, content).unwrap();
        }
        tar.append_pax_extensions([("SCHILY.xattr.user.a", b"b".as_slice())]).unwrap();
        vec![tar.into_inner().unwrap()]
    }

    /// Members with and without a name, one stored, a pad of zeros behind.
    pub(super) fn gzips() -> Vec<Vec<u8>> {
        use std::io::Write as _;
        let [layer] = <[_; 1]>::try_from(layers()).unwrap();
        let member = |level, name: &str| {
            let mut encoder =
                flate2::GzBuilder::new().filename(name).write(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(&layer).unwrap();
            encoder.finish().unwrap()
        };
        let two = [member(6, "a"), member(0, "b"), vec![0; 100]].concat();
        vec![member(1, ""), member(9, "layer.tar"), two]
    }

    /// Frames with and without a checksum, skippable ones around them.
    pub(super) fn zstds() -> Vec<Vec<u8>> {
        use std::io::Write as _;
        let [layer] = <[_; 1]>::try_from(layers()).unwrap();
        let frame = |level, checksum| {
            let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
            encoder.include_checksum(checksum).unwrap();
            encoder.write_all(&layer).unwrap();
            encoder.finish().unwrap()
        };
        let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        let many = [frame(3, true), skipped.clone(), frame(1, false), skipped].concat();
        vec![frame(3, true), frame(19, false), many]
    }

    pub(super) fn attests() -> Vec<Vec<u8>> {
        let evidence: serde_json::Value = serde_json::from_slice(&file("tpm/tpm_evidence.json")).unwrap();
        let quote = evidence.get("tpm_quote").or_else(|| evidence.get("quote")).unwrap_or(&evidence);
        let decode = |name: &str| quote[name].as_str().and_then(|text| protocols::encoding::un_b64(text).ok());
        let found: Vec<Vec<u8>> = ["message", "signature"].iter().filter_map(|name| decode(name)).collect();
        assert!(!found.is_empty(), "the vector's quote is read");
        found
    }

    pub(super) fn snp_reports() -> Vec<Vec<u8>> {
        let report = file("snp/test-report.bin");
        let json = super::Report::parse(&report).unwrap().to_json().to_string().into_bytes();
        vec![report, json]
    }

    pub(super) fn token() -> &'static str {
        static TOKEN: OnceLock<String> = OnceLock::new();
        TOKEN.get_or_init(|| {
            let receipt = Receipt {
                nonce: "n".to_owned(),
                guest: protocols::guest::GuestId::new([1; 32]),
                count: 2,
                head: HashAlg::Sha256.zero(),
                previous: None,
                issued_at: protocols::time::Timestamp(1),
            };
            let SigningKey::EcdsaP256(key) = key() else { unreachable!() };
            protocols::jws::sign(protocols::tcl::RECEIPT_TYP, None, &receipt, key).unwrap()
        })
    }

    pub(super) fn keys() -> &'static KeyRing {
        static KEYS: OnceLock<KeyRing> = OnceLock::new();
        KEYS.get_or_init(|| {
            let mut ring = KeyRing::default();
            ring.add_private(DecryptionKey::from_pem(&key().to_pem().unwrap()).unwrap());
            ring.add_wrapping(key_id(KEY_ID).unwrap(), WrappingKey::new(&[7; 32]).unwrap());
            ring
        })
    }

    /// Annotations of an empty layer, and the two packets in them.
    pub(super) fn encryptions() -> Vec<Vec<u8>> {
        let mut recipients = Recipients::default();
        recipients.add_public(RecipientKey::from_pem(&key().verifying_key().to_pem().unwrap()).unwrap());
        recipients.add_wrapping(key_id(KEY_ID).unwrap(), WrappingKey::new(&[7; 32]).unwrap());
        let annotations = LayerEncryptor::new(&protocols::digest::Sha256Digest::of(b"")).unwrap().finish(&recipients);
        let annotations = annotations.unwrap();
        let packets = annotations.values().map(|text| protocols::encoding::un_b64(text).unwrap());
        std::iter::once(json!(annotations).to_string().into_bytes()).chain(packets).collect()
    }

    pub(super) fn tokens() -> Vec<Vec<u8>> {
        vec![token().as_bytes().to_vec()]
    }
}
