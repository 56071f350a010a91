use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use protocols::golden::{ArgsRule, Issue, ProcessPolicy};

use super::*;
use crate::signers::SignerConfig;
use crate::testing::{EXPIRES, ISSUER, NOW, SERIES, authentic, digest, image, issue, key, signer, signers};

/// Everything an appraisal depends on, good as it stands.
struct Case {
    image: ImageMeasurement,
    golden: AuthenticatedGolden,
    signers: TrustedSigners,
    environment: Environment,
    process: ProcessRequest,
    now: Timestamp,
    high_water: HighWater,
}

impl Case {
    fn good() -> Self {
        Self::of(issue(3))
    }

    fn of(issue: Issue) -> Self {
        Self {
            image: image(),
            golden: authentic(issue),
            signers: signers(),
            environment: Environment::Production,
            process: ProcessRequest::from(&image().process),
            now: NOW,
            high_water: HighWater::None,
        }
    }

    fn run(&self) -> Verdict {
        let policy = Policy { signers: &self.signers, environment: self.environment, process: &self.process };
        appraise(&self.image, &self.golden, &policy, self.now, &self.high_water)
    }

    fn word(&self) -> &'static str {
        match self.run() {
            Verdict::Passed(_) => "pass",
            Verdict::Refused(refusal) => refusal.code.as_str(),
        }
    }
}

fn floored(min_version: u64, series: &str, floor: u64) -> TrustedSigners {
    let series = BTreeMap::from([(series.to_owned(), floor)]);
    TrustedSigners::new(vec![SignerConfig { min_version, series, ..signer(&key(1), ISSUER) }]).unwrap()
}

#[test]
fn a_pass_names_exactly_what_was_judged() {
    let case = Case::good();
    let Verdict::Passed(pass) = case.run() else { panic!("refused") };
    assert_eq!(pass.golden(), &case.golden.reference());
    assert_eq!(
        (pass.manifest(), pass.config(), pass.rootfs()),
        (digest("manifest"), digest("config"), digest("rootfs"))
    );
    assert_eq!(pass.process(), process_digest(&case.process).unwrap());
    let text = br#"{"args":["/app","serve"],"cwd":"/srv","env":["PATH=/bin","MODE=safe"],"mounts":[],"user":"app"}"#;
    assert_eq!(pass.process(), Sha256Digest::of(text));
}

type Change = fn(&mut Case);

#[test]
fn each_fault_alone_has_its_code() {
    let payload = |version| authentic(issue(version)).reference().payload;
    let cases: [(&str, &str, Change); 20] = [
        ("key pinned by nobody here", "golden.signer", |c| {
            c.signers = TrustedSigners::new(vec![signer(&key(2), ISSUER)]).unwrap();
        }),
        ("key pinned under another name", "golden.signer", |c| {
            c.signers = TrustedSigners::new(vec![signer(&key(1), "other@example.com")]).unwrap();
        }),
        ("another manifest", "golden.subject", |c| c.image.manifest = digest("x")),
        ("production value in development", "golden.environment", |c| c.environment = Environment::Development),
        ("at its expiry", "golden.expired", |c| c.now = EXPIRES),
        ("after its expiry", "golden.expired", |c| c.now = Timestamp::MAX),
        ("a second before its expiry", "pass", |c| c.now = Timestamp(EXPIRES.0 - 1)),
        ("below the minimum", "golden.rollback", |c| c.signers = floored(4, SERIES, 1)),
        ("below the series' floor", "golden.rollback", |c| c.signers = floored(1, SERIES, 4)),
        ("below another series' floor", "pass", |c| c.signers = floored(3, "another series", 4)),
        ("below the high-water mark", "golden.rollback", |c| {
            c.high_water = HighWater::Accepted { version: 4, payload: digest("x") };
        }),
        ("other content at the mark's version", "golden.conflict", |c| {
            c.high_water = HighWater::Accepted { version: 3, payload: digest("x") };
        }),
        ("above the mark", "pass", |c| c.high_water = HighWater::Accepted { version: 2, payload: digest("x") }),
        ("another config", "image.config", |c| c.image.config = digest("x")),
        ("another architecture", "image.platform", |c| c.image.platform.architecture = "arm64".into()),
        ("another layer", "image.layer", |c| c.image.layers[1] = digest("x")),
        ("layers swapped", "image.layer", |c| c.image.layers.reverse()),
        ("a layer more", "image.layer", |c| c.image.layers.push(digest("x"))),
        ("another root file system", "image.rootfs", |c| c.image.rootfs.digest = digest("x")),
        ("another argument", "policy.process", |c| c.process.args.push("-v".into())),
    ];
    for (name, expected, change) in cases {
        let mut case = Case::good();
        change(&mut case);
        assert_eq!(case.word(), expected, "{name}");
    }
    let mut case = Case::good();
    case.high_water = HighWater::Accepted { version: 3, payload: payload(3) };
    assert_eq!(case.word(), "pass", "the accepted one again");
}

#[test]
fn a_development_value_passes_in_development_only() {
    let mut case = Case::of(Issue { environment: Environment::Development, ..issue(3) });
    assert_eq!(case.word(), "golden.environment");
    case.environment = Environment::Development;
    assert_eq!(case.word(), "pass");
}

/// Layouts are an enum of one today: a golden value without a digest for it stands for one of an older release.
#[test]
fn a_layout_that_was_not_signed_is_refused() {
    let mut statement = protocols::golden::statement(&image(), issue(3));
    statement.predicate.rootfs.clear();
    let payload = statement.payload().unwrap();
    let envelope = protocols::dsse::Envelope::sign(protocols::golden::PAYLOAD_TYPE, payload, &key(1)).to_bytes();
    let mut case = Case::good();
    case.golden = crate::authenticate(&image().manifest, &[envelope], None, &signers(), NOW).unwrap();
    assert_eq!(case.word(), "image.rootfs");
}

#[test]
fn the_variant_counts_where_both_name_one() {
    let mut case = Case::good();
    case.image.platform.variant = Some("v3".into());
    assert_eq!(case.word(), "pass", "the golden value names none");
    let statement = protocols::golden::statement(&case.image, issue(3));
    let payload = statement.payload().unwrap();
    let envelope = protocols::dsse::Envelope::sign(protocols::golden::PAYLOAD_TYPE, payload, &key(1)).to_bytes();
    case.golden = crate::authenticate(&image().manifest, &[envelope], None, &signers(), NOW).unwrap();
    assert_eq!(case.word(), "pass", "both name the same");
    case.image.platform.variant = Some("v2".into());
    assert_eq!(case.word(), "image.platform");
    case.image.platform.variant = None;
    assert_eq!(case.word(), "pass", "the image names none");
}

#[test]
fn the_signed_process_policy_is_the_one_that_counts() {
    let process = ProcessPolicy { args: vec![ArgsRule::Prefix(vec!["/app".into()])], ..ProcessPolicy::default() };
    let mut case = Case::of(Issue { process: Some(process), ..issue(3) });
    case.process.args = vec!["/app".into(), "anything".into()];
    assert_eq!(case.word(), "pass");
    case.process.args = vec!["/bin/sh".into()];
    assert_eq!(case.word(), "policy.process");
}

/// All faults at once, cured one after the other: the codes come in the documented order.
#[test]
fn the_checks_come_in_their_fixed_order() {
    let mut case = Case::good();
    case.signers = TrustedSigners::new(vec![signer(&key(2), ISSUER)]).unwrap();
    case.image.manifest = digest("x");
    case.environment = Environment::Development;
    case.now = EXPIRES;
    case.high_water = HighWater::Accepted { version: 4, payload: digest("x") };
    case.image.config = digest("x");
    case.image.platform.os = "plan9".into();
    case.image.layers.clear();
    case.image.rootfs.digest = digest("x");
    case.process.user = "root".into();
    let cures: [(&str, Change); 11] = [
        ("golden.signer", |c| c.signers = signers()),
        ("golden.subject", |c| c.image.manifest = image().manifest),
        ("golden.environment", |c| c.environment = Environment::Production),
        ("golden.expired", |c| c.now = NOW),
        ("golden.rollback", |c| c.high_water = HighWater::Accepted { version: 3, payload: digest("x") }),
        ("golden.conflict", |c| c.high_water = HighWater::None),
        ("image.config", |c| c.image.config = image().config),
        ("image.platform", |c| c.image.platform = image().platform),
        ("image.layer", |c| c.image.layers = image().layers),
        ("image.rootfs", |c| c.image.rootfs = image().rootfs),
        ("policy.process", |c| c.process.user = "app".into()),
    ];
    for (expected, cure) in cures {
        assert_eq!(case.word(), expected);
        cure(&mut case);
    }
    assert_eq!(case.word(), "pass");
}

#[derive(Debug, Clone)]
enum Field {
    Manifest,
    Config,
    Layer(usize),
    Rootfs,
    Os(String),
    Architecture(String),
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        Just(Field::Manifest),
        Just(Field::Config),
        (0usize..2).prop_map(Field::Layer),
        Just(Field::Rootfs),
        "[a-z0-9]{0,8}".prop_map(Field::Os),
        "[a-z0-9]{0,8}".prop_map(Field::Architecture),
    ]
}

proptest! {
    #[test]
    fn any_single_changed_field_of_a_measurement_gives_its_code(field in field(), bytes in any::<[u8; 32]>()) {
        let other = Sha256Digest::new(bytes);
        let mut case = Case::good();
        let expected = match field {
            Field::Manifest => { case.image.manifest = other; "golden.subject" }
            Field::Config => { case.image.config = other; "image.config" }
            Field::Layer(place) => { case.image.layers[place] = other; "image.layer" }
            Field::Rootfs => { case.image.rootfs.digest = other; "image.rootfs" }
            Field::Os(os) => { case.image.platform.os = format!("x{os}"); "image.platform" }
            Field::Architecture(a) => { case.image.platform.architecture = format!("x{a}"); "image.platform" }
        };
        prop_assert_eq!(case.word(), expected);
    }
}
