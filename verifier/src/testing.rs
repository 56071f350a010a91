//! What the tests of this crate share: signers, images, golden values, and the records of a launch.

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::dsse::Envelope;
use protocols::environment::Environment;
use protocols::event_log::{MR_RTMR3, Record};
use protocols::events::{
    Copied, CopyFile, Created, Event, Exec, Exit, ExitReason, Floor, Golden, GoldenRef, Image, Init, Launch, Pause,
    Policy, PullImage, Started, TimeSource, VerdictWord, hash_list, hash_str,
};
use protocols::golden::{self, Issue, PAYLOAD_TYPE};
use protocols::image::{ImageMeasurement, ImageProcess, Layout, Platform, RootfsMeasurement};
use protocols::keys::SigningKey;
use protocols::register::{HashAlg, RegisterKind};
use protocols::tcl::Mode;
use protocols::time::Timestamp;

use crate::golden::{AuthenticatedGolden, authenticate};
use crate::signers::{RevocationRule, SignerConfig, TrustedSigners};

pub(crate) const ISSUER: &str = "release@example.com";
pub(crate) const SERIES: &str = "registry.example/app linux/amd64 latest";
pub(crate) const ISSUED: Timestamp = Timestamp(1_700_000_000);
pub(crate) const NOW: Timestamp = Timestamp(1_750_000_000);
pub(crate) const EXPIRES: Timestamp = Timestamp(1_800_000_000);

/// A fixed P-256 key per number.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::EcdsaP256(p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap())
}

pub(crate) fn signer(key: &SigningKey, issuer: &str) -> SignerConfig {
    SignerConfig {
        issuer: issuer.to_owned(),
        key: key.verifying_key().to_pem().unwrap(),
        min_version: 1,
        series: [].into(),
        revocations: RevocationRule::Optional,
    }
}

/// Key 1 as [`ISSUER`].
pub(crate) fn signers() -> TrustedSigners {
    TrustedSigners::new(vec![signer(&key(1), ISSUER)]).unwrap()
}

pub(crate) fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

pub(crate) fn image() -> ImageMeasurement {
    ImageMeasurement {
        manifest: digest("manifest"),
        config: digest("config"),
        layers: vec![digest("layer 0"), digest("layer 1")],
        rootfs: RootfsMeasurement { layout: Layout::TreeV1, digest: digest("rootfs") },
        platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
        process: ImageProcess {
            args: vec!["/app".into(), "serve".into()],
            env: vec!["PATH=/bin".into(), "MODE=safe".into()],
            user: "app".into(),
            cwd: "/srv".into(),
        },
    }
}

pub(crate) fn issue(version: u64) -> Issue {
    Issue {
        name: "registry.example/app".into(),
        issuer: ISSUER.into(),
        series: SERIES.into(),
        version,
        issued_at: ISSUED,
        expires: EXPIRES,
        environment: Environment::Production,
        process: None,
    }
}

/// A signed golden value for [`image`].
pub(crate) fn envelope(key: &SigningKey, issue: Issue) -> Vec<u8> {
    Envelope::sign(PAYLOAD_TYPE, golden::statement(&image(), issue).payload().unwrap(), key).to_bytes()
}

/// An authentic golden value for [`image`] by key 1.
pub(crate) fn authentic(issue: Issue) -> AuthenticatedGolden {
    authenticate(&image().manifest, &[envelope(&key(1), issue)], None, &signers(), NOW).unwrap()
}

pub(crate) fn init() -> Init {
    Init {
        v: 1,
        boot_nonce: [7; 32],
        register_kind: RegisterKind::Software,
        reg0: HashAlg::Sha384.zero(),
        agent: "0.1.0".into(),
        agent_h: digest("agent"),
        initdata: None,
        config: digest("configuration"),
        environment: Environment::Development,
        simulated: true,
    }
}

pub(crate) fn golden_ref(version: u64, payload: &str) -> GoldenRef {
    GoldenRef {
        payload: digest(payload),
        signer: digest("signer"),
        series_h: GoldenRef::series_hash(ISSUER, SERIES),
        version,
    }
}

pub(crate) fn cid(seq: u64) -> Sha384Digest {
    hash_str(&format!("container {seq}"))
}

/// The events of one whole launch: Image, PullImage, Golden, Launch, Created, Started, Exit.
pub(crate) fn launch(seq: u64) -> Vec<Event> {
    let reference = format!("registry.example/app:{seq}");
    let ImageMeasurement { manifest, config, rootfs, .. } = image();
    vec![
        Image { seq, ref_h: hash_str(&reference), manifest, config, rootfs }.into(),
        PullImage { digest: manifest, image: reference }.into(),
        Golden {
            seq,
            manifest,
            mode: Mode::Local,
            verdict: VerdictWord::Pass,
            golden: Some(golden_ref(3, "payload")),
            floor: Floor::Log,
            time_source: TimeSource::LatestKnown,
        }
        .into(),
        Launch {
            seq,
            cid_h: cid(seq),
            image_manifest: Some(manifest),
            rootfs,
            args_h: hash_list(&["/app"]),
            env_h: hash_list::<&str>(&[]),
            cwd_h: hash_str("/"),
            uid: 0,
            gid: 0,
            caps_h: hash_list::<&str>(&[]),
            mounts_h: hash_list::<&str>(&[]),
            oci_h: Sha384Digest::of(b"spec"),
            policy_h: digest("policy"),
            runtime: digest("runtime"),
        }
        .into(),
        Created {
            seq,
            config_h: digest("config.json"),
            rootfs_enforced: Layout::TreeV1,
            runtime_h: digest("runtime"),
            argv_h: hash_list(&["create"]),
        }
        .into(),
        Started { seq }.into(),
        Exit { seq: Some(seq), cid_h: cid(seq), status: Some(0), reason: ExitReason::Exited }.into(),
    ]
}

/// The events of the pause container's launch: Pause, Launch, Created, Started, Exit.
pub(crate) fn pause_launch(seq: u64) -> Vec<Event> {
    let rootfs = image().rootfs;
    let (args_h, env_h, cwd_h) = (hash_list(&["/pause"]), hash_list::<&str>(&[]), hash_str("/"));
    let mut events = vec![Pause { seq, rootfs, args_h, env_h, cwd_h, uid: 0, gid: 0 }.into()];
    events.extend(launch(seq).into_iter().skip(3).map(|event| match event {
        Event::Launch(launch) => Launch { image_manifest: None, args_h, env_h, cwd_h, ..launch }.into(),
        other => other,
    }));
    events
}

/// The `n`th exec of one process in container `seq`.
pub(crate) fn exec(seq: u64, n: u64) -> Event {
    Exec {
        seq,
        cid_h: cid(seq),
        args_h: hash_list(&["probe"]),
        env_h: hash_list::<&str>(&[]),
        cwd_h: hash_str("/"),
        uid: 0,
        gid: 0,
        process_h: Sha384Digest::of(b"process"),
        n,
    }
    .into()
}

/// A file from the host.
pub(crate) fn copy_file() -> Event {
    let content = Copied::File(digest("hosts"));
    CopyFile { path_h: hash_str("/run/hosts"), content, mode: 0o644, uid: 0, gid: 0 }.into()
}

/// Policy `new` in place of `old`.
pub(crate) fn policy(old: Option<&str>, new: &str) -> Event {
    Policy { old: old.map(digest), new: digest(new) }.into()
}

/// Records of register 4 with SHA-384: `Init` and `events`.
pub(crate) fn records(events: impl IntoIterator<Item = Event>) -> Vec<Record> {
    let all = [Event::from(init())].into_iter().chain(events);
    all.map(|event| event.record(MR_RTMR3, HashAlg::Sha384).unwrap()).collect()
}
