//! Decisions, one check at a time: each refusal turns when the check that made it alone is set right, and guest, attestor and
//! a file agree on every combination.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use kbs_client::{Question, Session};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::dsse::Envelope;
use protocols::environment::Environment;
use protocols::golden::{self, Issue, PAYLOAD_TYPE};
use protocols::image::{ImageMeasurement, ProcessRequest};
use protocols::keys::{KeyKind, SigningKey};
use protocols::reason::Source;
use protocols::tcl::Outcome;
use protocols::time::Timestamp;
use support::guest::{Guest, question};
use support::registry::Mood;
use support::{ISSUER, NOW, REFERENCE, World, digest, image, issue};
use verifier::rehearsal::Rehearsal;
use verifier::{HighWater, Policy, RevocationRule, SignerConfig, TrustedSigners, Verdict, appraise, authenticate};

/// One launch to be decided, and what the registry holds for it.
struct Case {
    /// What was measured, and is asked about.
    image: ImageMeasurement,
    /// What the golden value says.
    signed: ImageMeasurement,
    issue: Issue,
    key: SigningKey,
    /// Bytes as they are stored, in place of the envelope.
    stored: fn(Vec<u8>) -> Option<Vec<u8>>,
    process: ProcessRequest,
    revoked: bool,
    down: bool,
    /// Accepted before within the series: this version, of another image.
    before: Option<u64>,
}

impl Case {
    /// One that passes.
    fn right(world: &World, number: usize) -> Self {
        let image = ImageMeasurement { manifest: digest(&format!("manifest {number}")), ..image() };
        Self {
            signed: image.clone(),
            process: ProcessRequest::from(&image.process),
            image,
            issue: Issue { series: format!("series {number}"), ..issue(5) },
            key: SigningKey::from_pem(&world.signer.to_pem().unwrap()).unwrap(),
            stored: Some,
            revoked: false,
            down: false,
            before: None,
        }
    }

    fn payload(&self) -> Vec<u8> {
        golden::statement(&self.signed, self.issue.clone()).payload().unwrap()
    }

    fn envelope(&self) -> Option<Vec<u8>> {
        (self.stored)(Envelope::sign(PAYLOAD_TYPE, self.payload(), &self.key).to_bytes())
    }
}

/// What is wrong, by the code that says so.
type Wrong = (&'static str, fn(&mut Case));

const WRONG: &[Wrong] = &[
    ("golden.unavailable", |case| case.down = true),
    ("golden.missing", |case| case.stored = |_| None),
    ("golden.malformed", |case| case.stored = |_| Some(b"{}".to_vec())),
    ("golden.signature", |case| {
        case.stored = |bytes| {
            let mut envelope = Envelope::parse(&bytes).unwrap();
            *envelope.payload.last_mut().unwrap() = b' ';
            Some(envelope.to_bytes())
        }
    }),
    ("golden.signer", |case| case.key = SigningKey::generate(KeyKind::EcdsaP256).unwrap()),
    ("golden.subject", |case| case.signed.manifest = digest("another manifest")),
    ("golden.revoked", |case| case.revoked = true),
    ("golden.environment", |case| case.issue.environment = Environment::Production),
    ("golden.expired", |case| case.issue.expires = Timestamp(NOW)),
    ("golden.rollback", |case| case.before = Some(6)),
    ("golden.conflict", |case| case.before = Some(5)),
    ("image.config", |case| case.signed.config = digest("another config")),
    ("image.platform", |case| case.signed.platform.architecture = "arm64".into()),
    ("image.layer", |case| case.signed.layers.push(digest("another layer"))),
    ("image.rootfs", |case| case.signed.rootfs.digest = digest("another root")),
    ("policy.process", |case| case.process.args.push("--debug".into())),
];

/// A world that writes its questions down, and a guest in it.
struct Court {
    world: World,
    guest: Guest,
    session: Session,
    seq: u64,
}

impl Court {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let record = format!("record = \"{}\"\n", directory.path().display());
        let world = World::edited(directory, "development", |text| record + &text).await;
        let guest = Guest::boot(&world.tpm, 1);
        let session = guest.attest(&world.client()).await.unwrap();
        Self { world, guest, session, seq: 0 }
    }

    /// Has one launch decided by the attestor: the outcome, and the question as it was written down.
    async fn remote(&mut self, image: &ImageMeasurement, process: &ProcessRequest) -> (Outcome, Rehearsal) {
        self.seq += 1;
        self.guest.push_image(self.seq, image);
        let asked = Question { process: process.clone(), ..question(self.seq, image) };
        let verdict = self.guest.ask(&self.session, &asked).await.unwrap();
        self.guest.push_failed(self.seq);
        let file = self.world.directory.path().join(format!("{}.json", verdict.id().unwrap()));
        let question = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        (verdict.claims().outcome.clone(), question)
    }

    /// Stores what the case says, has it decided, and sets the registry right again.
    async fn decide(&mut self, case: &Case) -> (Outcome, Rehearsal) {
        if let Some(version) = case.before {
            let other = ImageMeasurement { manifest: digest(&format!("before {}", case.issue.series)), ..image() };
            let issue = Issue { version, ..Issue { environment: Environment::Development, ..case.issue.clone() } };
            let issue = Issue { expires: Timestamp(NOW + 1), ..issue };
            self.world.push(&other, self.world.envelope(&other, issue)).await;
            let (outcome, _) = self.remote(&other, &ProcessRequest::from(&other.process)).await;
            assert_eq!(word(&outcome), "pass");
        }
        if let Some(envelope) = case.envelope() {
            self.world.push(&case.image, envelope).await;
        }
        if case.revoked {
            self.world.registry.push_revocations(REFERENCE, &list(case)).await;
        }
        if case.down {
            self.world.registry.set(Mood::Down);
        }
        let decided = self.remote(&case.image, &case.process).await;
        self.world.registry.set(Mood::Up);
        self.world.registry.withhold_revocations();
        decided
    }
}

/// A revocation list by the case's signer with its golden value on it.
fn list(case: &Case) -> Vec<u8> {
    support::revocations(1, vec![Sha256Digest::of(&case.payload())], &case.key)
}

/// The decision as a guest makes it in local mode, from what the registry would have given it.
fn local(world: &World, case: &Case) -> String {
    if case.down {
        return "golden.unavailable".into();
    }
    let signer = SignerConfig {
        issuer: ISSUER.into(),
        key: world.signer.verifying_key().to_pem().unwrap(),
        min_version: 1,
        series: std::collections::BTreeMap::new(),
        revocations: RevocationRule::Optional,
    };
    let signers = TrustedSigners::new(vec![signer]).unwrap();
    let envelopes: Vec<_> = case.envelope().into_iter().collect();
    let revocations = case.revoked.then(|| list(case));
    let manifest = &case.image.manifest;
    let golden = match authenticate(manifest, &envelopes, revocations.as_deref(), &signers, Timestamp(NOW)) {
        Ok(golden) => golden,
        Err(refusal) => return refusal.code.to_string(),
    };
    let high_water = case.before.map_or(HighWater::None, |version| HighWater::Accepted {
        version,
        payload: Sha256Digest::of(b"of another image"),
    });
    let policy = Policy { signers: &signers, environment: Environment::Development, process: &case.process };
    match appraise(&case.image, &golden, &policy, Timestamp(NOW), &high_water) {
        Verdict::Passed(pass) => {
            assert_ne!(pass.golden().series_h, Sha384Digest::of(b""));
            "pass".into()
        }
        Verdict::Refused(refusal) => refusal.code.to_string(),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass(_) => "pass",
        Outcome::Refused { refusal, .. } => refusal.code.as_str(),
    }
}

/// The same code about the same golden value; who says so may differ.
fn assert_same(offline: &Outcome, remote: &Outcome, what: &str) {
    match (offline, remote) {
        (Outcome::Refused { refusal: a, golden: g }, Outcome::Refused { refusal: b, golden: h }) => {
            assert_eq!(
                (a.code, &a.subject, &a.expected, &a.actual),
                (b.code, &b.subject, &b.expected, &b.actual),
                "{what}"
            );
            assert_eq!(g, h, "{what}");
        }
        (a, b) => assert_eq!(a, b, "{what}"),
    }
}

#[tokio::test]
async fn each_refusal_turns_when_its_check_alone_is_set_right() {
    let mut court = Court::new().await;
    for (number, (code, wrong)) in WRONG.iter().enumerate() {
        let mut case = Case::right(&court.world, number);
        wrong(&mut case);
        let (outcome, question) = court.decide(&case).await;
        assert_eq!(word(&outcome), *code);
        assert_same(&question.outcome(Source::Command).unwrap(), &outcome, code);
        // The same with nothing wrong in it.
        let right = Case::right(&court.world, WRONG.len() + number);
        let (outcome, question) = court.decide(&right).await;
        assert_eq!(word(&outcome), "pass", "{code}");
        assert_same(&question.outcome(Source::Command).unwrap(), &outcome, code);
    }
}

/// Every pair of things that are wrong, and every one alone: 136 launches.
#[tokio::test]
async fn guest_attestor_and_file_agree_on_every_combination() {
    let mut court = Court::new().await;
    let mut agreed = 0;
    for (first, (one, wrong)) in WRONG.iter().enumerate() {
        for (two, also) in &WRONG[first..] {
            let mut case = Case::right(&court.world, 1000 + agreed);
            wrong(&mut case);
            also(&mut case);
            let what = format!("{one} and {two}");
            let (remote, question) = court.decide(&case).await;
            assert_ne!(word(&remote), "pass", "{what}");
            // Which of two failed checks is told is the same everywhere as well.
            assert_same(&question.outcome(Source::Command).unwrap(), &remote, &what);
            assert_eq!(local(&court.world, &case), word(&remote), "{what}");
            agreed += 1;
        }
    }
    assert!(agreed >= 100, "{agreed}");
}

/// What the attestor remembers of revocations is in the question too, whatever list is shown later.
#[tokio::test]
async fn a_question_carries_what_was_revoked_before() {
    let mut court = Court::new().await;
    let mut case = Case::right(&court.world, 1);
    case.revoked = true;
    court.decide(&case).await;
    case.revoked = false;
    let (remote, question) = court.decide(&case).await;
    assert_eq!((word(&remote), question.revocations.is_none(), question.revoked.len()), ("golden.revoked", true, 1));
    assert_same(&question.outcome(Source::Command).unwrap(), &remote, "remembered");
}
