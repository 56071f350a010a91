//! `signedBy` with signatures made by skopeo and GnuPG, and with skopeo as a second judge: every case is put to both,
//! and the cases in which they differ are named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use image_rs_fork::registry::{Descriptor, HttpRegistry, ImageReference, RegistriesD, RegistryConfig};
use image_rs_fork::{ImageError, ImagePolicy, Limits, MeasuredImage, NoKeys, NoProgress, SignaturePolicy, fetch, pull};
use protocols::digest::Sha256Digest;
use protocols::encoding;
use protocols::reason;
use protocols::time::Timestamp;
use serde_json::{Value, json};
use support::World;
use support::gnupg::{FileServer, Gnupg, Lookaside, payload};
use support::image::{self, gzip};
use support::tar::{archive, file};

const NAME: &str = "team/app";

/// An image at `v1`, a lookaside, and a client that knows it.
struct Signed {
    world: World,
    image: Descriptor,
    lookaside: Lookaside,
    client: HttpRegistry,
}

impl Signed {
    async fn new() -> Self {
        let world = World::new();
        let layer = gzip(&archive([file("f", b"content")]));
        let image = image::push(&world.client, &world.repository, "v1", &[layer]).await;
        let lookaside = Lookaside::new();
        let client = client(&world, &lookaside.registries_d());
        Self { world, image, lookaside, client }
    }

    fn name(&self, tag: &str) -> String {
        format!("{}:{tag}", self.world.repository)
    }

    async fn pull_at(&self, reference: &str, policy: &Value, now: Timestamp) -> Result<MeasuredImage, ImageError> {
        let policy = SignaturePolicy::parse(policy.to_string().as_bytes()).unwrap();
        let reference: ImageReference = reference.parse().unwrap();
        let verified =
            fetch(&reference, &self.client).await?.verify(&ImagePolicy::host(policy, now), &self.client).await?;
        pull(verified, &self.client, &self.world.store, &NoKeys, &Limits::default(), &NoProgress).await
    }

    async fn pull(&self, policy: &Value) -> Result<MeasuredImage, ImageError> {
        self.pull_at(&self.name("v1"), policy, Timestamp::now()).await
    }

    fn put(&self, signatures: &[Vec<u8>]) {
        self.lookaside.put(NAME, &self.image.digest, signatures);
    }

    /// Both take it.
    async fn taken(&self, case: &str, gnupg: &Gnupg, reference: &str, policy: &Value) {
        let ours = self.pull_at(reference, policy, Timestamp::now()).await;
        ours.unwrap_or_else(|e| panic!("{case}: {:?}", e.refusal()));
        self.lookaside.skopeo_takes(gnupg, reference, policy).unwrap_or_else(|told| panic!("{case}: {told}"));
    }

    /// We refuse it with facts that contain `actual`, and nothing was stored; skopeo refuses it as well, or does not
    /// where `theirs` says so.
    async fn refused(&self, case: &str, gnupg: &Gnupg, policy: &Value, actual: &str, theirs: Theirs) {
        let error = self.pull(policy).await.expect_err(case);
        assert_eq!(error.code(), reason::IMAGE_SIGNATURE, "{case}: {error}");
        assert!(error.refusal().actual.contains(actual), "{case}: {:?}", error.refusal());
        let told = self.lookaside.skopeo_takes(gnupg, &self.name("v1"), policy);
        assert_eq!(told.is_err(), theirs == Theirs::Refuses, "{case}: {told:?}");
    }
}

/// What skopeo says of what we refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theirs {
    Refuses,
    /// A known difference; see docs/signatures.md.
    Takes,
}

fn client(world: &World, registries_d: &str) -> HttpRegistry {
    let config = RegistryConfig {
        plain_http: vec![world.server.host()],
        registries_d_json: RegistriesD::parse(registries_d).unwrap(),
        stall_seconds: 5,
        ..RegistryConfig::default()
    };
    HttpRegistry::new(config).unwrap()
}

fn by(key: &std::path::Path, identity: Option<Value>) -> Value {
    let mut requirement = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": key});
    if let Some(identity) = identity {
        requirement["signedIdentity"] = identity;
    }
    json!({"default": [requirement]})
}

#[tokio::test]
async fn what_skopeo_signs_is_taken_with_every_kind_of_key_wherever_the_key_is_written() {
    let gnupg = Gnupg::new();
    gnupg.key("other@example", "ed25519", "sign", "never", &[]);
    let other = gnupg.export("other@example", "other.gpg");
    for algorithm in ["ed25519", "rsa2048", "rsa4096", "nistp256", "nistp384"] {
        let signed = Signed::new().await;
        gnupg.key(algorithm, algorithm, "sign", "never", &[]);
        let key = gnupg.export(algorithm, algorithm);
        signed.lookaside.sign_with_skopeo(&gnupg, &signed.name("v1"), &["--sign-by", &gnupg.fingerprint(algorithm)]);
        signed.taken(algorithm, &gnupg, &signed.name("v1"), &by(&key, None)).await;
        let pinned = format!("{}@{}", signed.world.repository, signed.image.digest);
        signed.taken(algorithm, &gnupg, &pinned, &by(&key, None)).await;
        signed.refused(algorithm, &gnupg, &by(&other, None), "wrong key", Theirs::Refuses).await;
        let data = encoding::b64(&std::fs::read(&key).unwrap());
        let requirement = json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": data});
        signed.taken("keyData", &gnupg, &signed.name("v1"), &json!({"default": [requirement]})).await;
        let armoured = gnupg.home().join("armoured.asc");
        std::fs::write(&armoured, gnupg.gpg(&["--armor", "--export", algorithm], b"")).unwrap();
        signed.taken("armoured", &gnupg, &signed.name("v1"), &by(&armoured, None)).await;
        // skopeo of Debian 12 does not know the member yet.
        let paths = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [other, key]});
        signed.pull(&json!({"default": [paths]})).await.unwrap();
    }
}

#[tokio::test]
async fn what_somebody_else_signed_or_signed_of_something_else_is_refused() {
    let signed = Signed::new().await;
    let gnupg = Gnupg::new();
    for user in ["signer@example", "stranger@example"] {
        gnupg.key(user, "ed25519", "sign", "never", &[]);
    }
    let policy = by(&gnupg.export("signer@example", "signer.gpg"), None);
    let digest = &signed.image.digest;
    let (good, name) = (payload(digest, &signed.name("v1")), signed.name("v1"));
    let sign = |user: &str, more: &[&str], text: &[u8]| {
        gnupg.gpg(&[more, &["--local-user", user, "--output", "-", "--sign"]].concat(), text)
    };
    let text = String::from_utf8(good.clone()).unwrap();
    let changed = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        sign("signer@example", &[], changed.as_bytes())
    };
    let plain = sign("signer@example", &["--compress-algo", "none"], &good);
    let at = plain.windows(4).position(|it| it == b"crit").unwrap();
    let mut altered = plain.clone();
    altered[at] ^= 1;
    let mut cut = plain.clone();
    cut.truncate(plain.len() - 4);
    let twice = gnupg.gpg(&["--local-user", "signer@example", "--local-user", "stranger@example", "--sign"], &good);
    let mut nested = plain.clone();
    nested.extend_from_slice(&plain);
    let other_digest = sign("signer@example", &[], &payload(&Sha256Digest::of(b"other"), &name));
    let other_name = sign("signer@example", &[], &payload(digest, &name.replace("team/app", "team/other")));
    let detached = gnupg.gpg(&["--local-user", "signer@example", "--detach-sign"], &good);
    let clear = gnupg.gpg(&["--local-user", "signer@example", "--clear-sign"], &good);
    let armoured = sign("signer@example", &["--armor"], &good);
    let sha1 = sign("signer@example", &["--digest-algo", "SHA1"], &good);
    let huge = text.replace("\"creator\":\"test\"", &format!("\"creator\":\"{}\"", "y".repeat(5_000_000)));
    let huge = sign("signer@example", &[], huge.as_bytes());
    let too_large = vec![0xa3u8; 4 * 1024 * 1024 + 1];
    use Theirs::{Refuses, Takes};
    let cases = [
        ("signed_by_a_stranger", sign("stranger@example", &[], &good), "wrong key", Refuses),
        ("an_altered_payload", altered, "wrong key", Refuses),
        ("a_cut_signature", cut, "1 signature: ", Refuses),
        ("another_digest", other_digest, "other digest", Refuses),
        ("another_repository", other_name, "team/other", Refuses),
        ("another_tag", sign("signer@example", &[], &payload(digest, &signed.name("v2"))), ":v2", Refuses),
        ("another_kind_of_signature", changed("atomic container", "cosign container image"), "type", Refuses),
        ("a_member_twice", changed("\"optional\":", "\"critical\":{},\"optional\":"), "duplicate field", Refuses),
        ("an_unknown_critical_member", changed("\"identity\":", "\"x\":1,\"identity\":"), "unknown field", Refuses),
        ("two_signatures", twice, "OpenPGP packets", Refuses),
        ("two_messages", nested, "OpenPGP packets", Refuses),
        ("a_detached_signature", detached, "not a signed message", Refuses),
        ("a_clear_signature", clear, "cannot be read", Refuses),
        ("an_armoured_message", armoured, "cannot be read", Refuses),
        ("a_sha1_signature", sha1, "too weak: made with SHA-1", Takes),
        ("a_decompression_bomb", huge, "larger than", Takes),
        ("a_huge_file", too_large, "larger than 4194304 bytes", Refuses),
        ("nothing", Vec::new(), "not a signed message", Refuses),
        ("noise", b"\x90\x0d\x03noise".to_vec(), "cannot be read", Refuses),
    ];
    signed.refused("no_signature", &gnupg, &policy, "no signature in file:///", Refuses).await;
    for (case, signature, actual, theirs) in cases {
        signed.put(&[signature]);
        signed.refused(case, &gnupg, &policy, actual, theirs).await;
        signed.world.nothing_stored();
    }
    // A gap in the numbers ends the list; one that counts is enough, in whatever company.
    let good = sign("signer@example", &[], &good);
    let stranger = sign("stranger@example", &[], &payload(digest, &name));
    signed.put(&[stranger, good.clone()]);
    signed.taken("one of two", &gnupg, &name, &policy).await;
    std::fs::remove_file(signed.lookaside.of(NAME, digest).join("signature-1")).unwrap();
    signed.refused("a_removed_signature", &gnupg, &policy, "no signature in", Refuses).await;
    signed.put(&vec![good; 65]);
    signed.refused("more_signatures_than_are_read", &gnupg, &policy, "65 signatures", Takes).await;
}

#[tokio::test]
async fn a_key_that_may_not_sign_now_makes_no_signature() {
    let signed = Signed::new().await;
    let gnupg = Gnupg::new();
    let good = payload(&signed.image.digest, &signed.name("v1"));
    let sign = |user: &str, more: &[&str]| {
        gnupg.gpg(&[more, &["--local-user", user, "--output", "-", "--sign"]].concat(), &good)
    };
    let put = |signature: Vec<u8>| signed.put(&[signature]);
    let early = ["--faked-system-time", "20240101T000000!"];

    gnupg.key("revoked@example", "ed25519", "sign", "never", &[]);
    put(sign("revoked@example", &[]));
    let before = by(&gnupg.export("revoked@example", "good"), None);
    signed.taken("not yet revoked", &gnupg, &signed.name("v1"), &before).await;
    gnupg.revoke("revoked@example");
    let after = by(&gnupg.export("revoked@example", "revoked"), None);
    signed.refused("a_revoked_key", &gnupg, &after, "the key was revoked", Theirs::Refuses).await;

    gnupg.key("expired@example", "ed25519", "sign", "1y", &early);
    put(sign("expired@example", &early));
    let policy = by(&gnupg.export("expired@example", "expired"), None);
    signed.refused("an_expired_key", &gnupg, &policy, "the key ended 2024-12-31", Theirs::Refuses).await;
    let then = Timestamp::parse("2024-06-01T00:00:00Z").unwrap();
    signed.pull_at(&signed.name("v1"), &policy, then).await.unwrap();

    gnupg.key("short@example", "ed25519", "sign", "never", &early);
    put(sign("short@example", &[&early[..], &["--default-sig-expire", "10d"]].concat()));
    let policy = by(&gnupg.export("short@example", "short"), None);
    signed.refused("an_expired_signature", &gnupg, &policy, "the signature ended 2024-01-11", Theirs::Refuses).await;
    signed.pull_at(&signed.name("v1"), &policy, Timestamp::parse("2024-01-10T00:00:00Z").unwrap()).await.unwrap();

    // Keys that are not taken at all are refused with the policy.
    for (algorithm, problem) in
        [("rsa1024", "an RSA key of 1024 bits"), ("nistp521", "another curve"), ("dsa2048", "17")]
    {
        gnupg.key(algorithm, algorithm, "sign", "never", &[]);
        put(sign(algorithm, &[]));
        let policy = by(&gnupg.export(algorithm, algorithm), None);
        let error = SignaturePolicy::parse(policy.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(problem), "{algorithm}: {error}");
        signed.lookaside.skopeo_takes(&gnupg, &signed.name("v1"), &policy).unwrap();
    }
}

#[tokio::test]
async fn a_subkey_signs_if_its_flags_its_own_word_and_its_owner_say_so() {
    let signed = Signed::new().await;
    let gnupg = Gnupg::new();
    let good = payload(&signed.image.digest, &signed.name("v1"));
    gnupg.key("owner@example", "ed25519", "cert", "never", &[]);
    let fingerprint = gnupg.fingerprint("owner@example");
    gnupg.gpg(&["--quick-add-key", &fingerprint, "ed25519", "sign", "never"], b"");
    signed.put(&[gnupg.gpg(&["--local-user", "owner@example", "--output", "-", "--sign"], &good)]);
    let policy = by(&gnupg.export("owner@example", "owner"), None);
    // skopeo of Debian 12 compares the subkey's fingerprint with the primary key's.
    signed.pull(&policy).await.unwrap();
    signed.lookaside.skopeo_takes(&gnupg, &signed.name("v1"), &policy).unwrap_err();

    // The owner takes the flag back.
    let edit = |commands: &str, name: &str| {
        let arguments = ["--no-tty", "--command-fd", "0", "--expert", "--edit-key", "owner@example"];
        gnupg.gpg(&arguments, commands.as_bytes());
        by(&gnupg.export("owner@example", name), None)
    };
    std::thread::sleep(std::time::Duration::from_millis(1100)); // a later second, so that the newer word is the newer
    let policy = edit("key 1\nchange-usage\nS\nA\nQ\nsave\n", "unflagged");
    signed.refused("a_subkey_not_for_signing", &gnupg, &policy, "not for signing", Theirs::Refuses).await;
    let policy = edit("key 1\nrevkey\ny\n0\n\ny\nsave\n", "subkey-revoked");
    signed.refused("a_revoked_subkey", &gnupg, &policy, "the key was revoked", Theirs::Refuses).await;
}

#[tokio::test]
async fn names_are_judged_as_skopeo_judges_them() {
    let signed = Signed::new().await;
    let gnupg = Gnupg::new();
    gnupg.key("signer@example", "ed25519", "sign", "never", &[]);
    let key = gnupg.export("signer@example", "signer.gpg");
    let host = signed.world.server.host();
    let sign_as = |identity: &str| {
        let _ = std::fs::remove_dir_all(signed.lookaside.root());
        let fingerprint = gnupg.fingerprint("signer@example");
        let arguments = ["--sign-by", &fingerprint, "--sign-identity", identity];
        signed.lookaside.sign_with_skopeo(&gnupg, &signed.name("v1"), &arguments);
    };
    let exact = |name: &str| json!({"type": "exactReference", "dockerReference": name});
    let repository = |name: &str| json!({"type": "exactRepository", "dockerRepository": name});
    let kind = |kind: &str| json!({"type": kind});
    let remap = json!({"type": "remapIdentity", "prefix": host, "signedPrefix": "vendor.example"});
    let ours = signed.name("v1");
    let other = signed.name("v2");
    let vendor = "vendor.example/team/app:v1";
    for (signed_as, identity, good) in [
        (ours.as_str(), kind("matchExact"), true),
        (&other, kind("matchExact"), false),
        (&ours, kind("matchRepoDigestOrExact"), true),
        (&other, kind("matchRepoDigestOrExact"), false),
        (&other, kind("matchRepository"), true),
        (vendor, kind("matchRepository"), false),
        (vendor, exact(vendor), true),
        (vendor, exact("vendor.example/team/app:v2"), false),
        (vendor, repository("vendor.example/team/app"), true),
        (vendor, repository("vendor.example/team/other"), false),
        (vendor, remap.clone(), true),
        (&ours, remap, false),
    ] {
        sign_as(signed_as);
        let case = format!("{signed_as} by {identity}");
        let policy = by(&key, Some(identity));
        if good {
            signed.taken(&case, &gnupg, &ours, &policy).await;
        } else {
            signed.refused(&case, &gnupg, &policy, "signed as", Theirs::Refuses).await;
        }
    }
}

#[tokio::test]
async fn a_lookaside_may_be_another_server() {
    let mut signed = Signed::new().await;
    let gnupg = Gnupg::new();
    gnupg.key("signer@example", "ed25519", "sign", "never", &[]);
    let policy = by(&gnupg.export("signer@example", "signer.gpg"), None);
    let fingerprint = gnupg.fingerprint("signer@example");
    signed.lookaside.sign_with_skopeo(&gnupg, &signed.name("v1"), &["--sign-by", &fingerprint]);
    let server = FileServer::start(&signed.lookaside.root());
    let registries_d = signed.lookaside.reconfigure(&format!("http://{}", server.address));
    let config = RegistryConfig {
        plain_http: vec![signed.world.server.host(), server.address.clone()],
        registries_d_json: RegistriesD::parse(&registries_d).unwrap(),
        ..RegistryConfig::default()
    };
    signed.client = HttpRegistry::new(config).unwrap();
    signed.taken("by HTTP", &gnupg, &signed.name("v1"), &policy).await;
    std::fs::remove_dir_all(signed.lookaside.root()).unwrap();
    std::fs::create_dir(signed.lookaside.root()).unwrap();
    signed.refused("a_removed_signature", &gnupg, &policy, "no signature in http://", Theirs::Refuses).await;
}

#[tokio::test]
async fn without_a_lookaside_nothing_is_signed_and_an_outage_is_no_absence() {
    let mut signed = Signed::new().await;
    let gnupg = Gnupg::new();
    gnupg.key("signer@example", "ed25519", "sign", "never", &[]);
    let policy = by(&gnupg.export("signer@example", "signer.gpg"), None);
    let fingerprint = gnupg.fingerprint("signer@example");
    signed.lookaside.sign_with_skopeo(&gnupg, &signed.name("v1"), &["--sign-by", &fingerprint]);
    signed.pull(&policy).await.unwrap();

    let configured = std::mem::replace(&mut signed.client, client(&signed.world, "{}"));
    let refusal = signed.pull(&policy).await.unwrap_err().refusal();
    assert!(refusal.actual.contains("names no lookaside"), "{refusal:?}");
    signed.client = configured;

    // What is there and cannot be read is no absence.
    let at = signed.lookaside.of(NAME, &signed.image.digest).join("signature-1");
    std::fs::remove_file(&at).unwrap();
    std::fs::create_dir(&at).unwrap();
    assert_eq!(signed.pull(&policy).await.unwrap_err().code(), reason::IMAGE_REGISTRY);
    // Nor is a server that does not answer.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = RegistryConfig {
        plain_http: vec![signed.world.server.host(), gone.to_string()],
        registries_d_json: RegistriesD::parse(&format!(r#"{{"default-docker":{{"lookaside":"http://{gone}/s"}}}}"#))
            .unwrap(),
        retries: 0,
        ..RegistryConfig::default()
    };
    signed.client = HttpRegistry::new(config.clone()).unwrap();
    assert_eq!(signed.pull(&policy).await.unwrap_err().code(), reason::IMAGE_REGISTRY);
    // Plain HTTP only to hosts that are listed.
    let unlisted = RegistryConfig { plain_http: vec![signed.world.server.host()], ..config };
    assert!(HttpRegistry::new(unlisted).unwrap_err().to_string().contains("plain HTTP"));
}
