//! The table of configurations that are taken and refused.

use ::boot::KernelParameters;
use protocols::keys::{KeyKind, SigningKey};

use super::*;

fn pem() -> String {
    SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap()
}

const DISK: &str = "[image_disk]\nserial = \"tcl-images\"\nmke2fs = \"/usr/sbin/mke2fs\"\n";

/// A development configuration that is taken.
fn development() -> String {
    let (attestor, signer) = (pem(), pem());
    format!(
        r#"environment = "development"
state_dir = "/run/tcl"
image_dir = "/run/tcl/images"

[listen]
unix = "/run/tcl/agent.sock"

[attester]
kind = "tpm"
device = "unix:/run/swtpm.sock"

[attestor]
kind = "tcl"
url = "http://127.0.0.1:8080"
key = """{attestor}"""

[modes]
permitted = ["local", "remote"]
default = "remote"

[local]
boot_state = {{ unmeasured = true }}
receipts = "queue"
queue_max = 1024
golden_from = "registry"

[[signers]]
issuer = "release@example.com"
key = """{signer}"""
min_version = 1
revocations = "optional"

[registry]
plain_http = ["127.0.0.1:5000"]

[images]
# Whoever signs golden values approves images here; no image signature is asked for beside theirs.
signature_policy_json = '{{"default": [{{"type": "insecureAcceptAnything"}}]}}'
layout = "tree-v1"
quota_bytes = 1073741824

[limits]
layers = 7

[runtime]
path = "/usr/bin/runc"
"#
    )
}

const ACCEPT: &str = "signature_policy_json = '{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}'\n";

/// What production takes instead, part for part.
const PRODUCTION: [(&str, &str); 5] = [
    ("environment = \"development\"\n", ""),
    ("device = \"unix:/run/swtpm.sock\"", "device = \"/dev/tpmrm0\""),
    ("http://127.0.0.1:8080", "https://attestor.example"),
    (
        "{ unmeasured = true }",
        "{ pcrs = { \"7\" = \"00000000000000000000000000000000000000000000000000000000000000ff\" } }",
    ),
    ("plain_http = [\"127.0.0.1:5000\"]", ""),
];

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

pub(crate) fn production() -> String {
    PRODUCTION.iter().fold(development(), |text, (from, to)| replaced(&text, from, to))
}

#[test]
fn a_whole_configuration_is_read_as_it_is_written() {
    let text = development();
    let config = Config::parse(text.as_bytes()).unwrap();
    assert_eq!(config.digest, Sha256Digest::of(text.as_bytes()));
    assert_eq!(config.environment, Environment::Development);
    assert_eq!(config.modes.default, Mode::Remote);
    let local = config.local.unwrap();
    assert_eq!(local.boot_state, BootState::Unmeasured);
    assert_eq!(local.receipts, Receipts::Queue(1000), "one delivery carries the whole queue");
    assert_eq!(local.golden_from, GoldenFrom::Registry);
    assert!(config.registry.allows_plain_http("127.0.0.1:5000"));
    assert_eq!(config.limits.layers, 7);
    assert_eq!(config.image_layout, Some(Layout::TreeV1));
    assert_eq!(config.image_quota, Some(1 << 30));
    assert_eq!(config.listen.vsock, None);
    assert_eq!(
        config.attester,
        AttesterConfig::Tpm { device: "unix:/run/swtpm.sock".parse().unwrap(), pcr: attester::DEFAULT_PCR }
    );
}

#[test]
fn a_disk_for_images_is_taken_with_the_layout_that_verity_reads() {
    let text = replaced(&development(), "layout = \"tree-v1\"\n", "");
    let config = Config::parse(replaced(&text, "[limits]\n", &format!("{DISK}[limits]\n")).as_bytes()).unwrap();
    assert_eq!(config.image_layout, Some(Layout::ErofsV1), "no other one is fallen back to");
    assert_eq!(config.image_disk.unwrap().serial, "tcl-images");
    let wrong = DISK.replace("tcl-images", "tcl images");
    let error = Config::parse(replaced(&text, "[limits]\n", &format!("{wrong}[limits]\n")).as_bytes()).unwrap_err();
    assert!(matches!(error, ConfigError::Field { field: "image_disk.serial", .. }), "{error}");
}

#[test]
fn production_is_what_is_meant_when_nothing_is_said() {
    let config = Config::parse(production().as_bytes()).unwrap();
    assert_eq!(config.environment, Environment::Production);
    let pcrs = match config.local.unwrap().boot_state {
        BootState::Pcrs(pcrs) => pcrs,
        other => panic!("{other:?}"),
    };
    assert_eq!(pcrs.keys().copied().collect::<Vec<_>>(), [7]);
    assert!(config.registry.plain_http.is_empty());
}

#[test]
fn production_takes_nothing_simulated_unmeasured_or_in_the_clear() {
    for (development, production_part) in PRODUCTION.iter().skip(1) {
        let from = if production_part.is_empty() { "[registry]\n" } else { production_part };
        let to =
            if production_part.is_empty() { format!("[registry]\n{development}") } else { (*development).to_owned() };
        let text = replaced(&production(), from, &to);
        match Config::parse(text.as_bytes()) {
            Err(ConfigError::Production { .. }) => {}
            other => panic!("{development}: {other:?}"),
        }
    }
    let conf = "registries_conf = '''\n[[registry]]\nlocation = \"r.example\"\ninsecure = true\n'''\n";
    let insecure = replaced(&production(), "[registry]\n", &format!("[registry]\n{conf}"));
    let refused = Config::parse(insecure.as_bytes());
    assert!(matches!(refused, Err(ConfigError::Production { field: "plain HTTP in [registry]" })), "{refused:?}");
    let simulated =
        replaced(&production(), "kind = \"tpm\"\ndevice = \"/dev/tpmrm0\"", "kind = \"simulated-snp\"\npki = \"/pki\"");
    assert!(matches!(Config::parse(simulated.as_bytes()), Err(ConfigError::Production { field: "attester" })));
}

#[test]
fn what_is_unknown_missing_or_contradictory_is_refused() {
    let cases = [
        ("an unknown key", "state_dir =", "color = \"red\"\nstate_dir ="),
        ("an unknown key in a table", "[local]\n", "[local]\nbootstate = true\n"),
        ("an unknown environment", "\"development\"", "\"staging\""),
        ("a relative directory", "\"/run/tcl\"", "\"run/tcl\""),
        ("a default that is not permitted", "permitted = [\"local\", \"remote\"]", "permitted = [\"local\"]"),
        ("no mode at all", "permitted = [\"local\", \"remote\"]", "permitted = []"),
        ("local rules without local mode", "permitted = [\"local\", \"remote\"]", "permitted = [\"remote\"]"),
        ("no boot state", "boot_state = { unmeasured = true }\n", ""),
        ("a boot state that names nothing", "{ unmeasured = true }", "{ unmeasured = false }"),
        ("two boot states", "{ unmeasured = true }", "{ unmeasured = true, initdata = true }"),
        ("no PCR", "{ unmeasured = true }", "{ pcrs = {} }"),
        ("a PCR that is none", "{ unmeasured = true }", "{ pcrs = { \"24\" = \"00\" } }"),
        ("a short PCR value", "{ unmeasured = true }", "{ pcrs = { \"7\" = \"00\" } }"),
        ("no word about receipts", "receipts = \"queue\"\n", ""),
        ("an unknown word about receipts", "\"queue\"", "\"never\""),
        ("a queue without room", "queue_max = 1024", "queue_max = 0"),
        ("a queue that no delivery carries", "queue_max = 1024", "queue_max = 1025"),
        ("no source of golden values", "golden_from = \"registry\"\n", ""),
        ("no signer", "min_version = 1", "min_version = 0"),
        ("a signer without a rule on revocations", "revocations = \"optional\"\n", ""),
        ("plain http to another machine", "http://127.0.0.1:8080", "http://192.0.2.1:8080"),
        ("a stock KBS", "kind = \"tcl\"", "kind = \"trustee\""),
        ("an unknown attester", "kind = \"tpm\"", "kind = \"sample\""),
        ("a method the host cannot have", "[attester]", "[listen.vsock]\nport = 1\nallow = [\"Exec\"]\n[attester]"),
        ("a vsock without methods", "[attester]", "[listen.vsock]\nport = 1\n[attester]"),
        ("a limit that is none", "layers = 7", "layer = 7"),
        ("no word about signatures", ACCEPT, ""),
        ("two signature policies", ACCEPT, &format!("{ACCEPT}signature_policy = \"/policy.json\"\n")),
        ("a relative signature policy", ACCEPT, "signature_policy = \"policy.json\"\n"),
        ("a signature policy that is not there", ACCEPT, "signature_policy = \"/no/such/policy.json\"\n"),
        ("a signature policy that says nothing", ACCEPT, "signature_policy_json = '{\"default\": []}'\n"),
        ("a signature policy with an unknown word", "insecureAcceptAnything", "insecureAcceptSome"),
        ("a disk for a layout that it does not take", "[limits]\n", &format!("{DISK}[limits]\n")),
        ("no runtime", "[runtime]\npath = \"/usr/bin/runc\"\n", ""),
    ];
    for (name, from, to) in cases {
        let text = replaced(&development(), from, to);
        assert!(Config::parse(text.as_bytes()).is_err(), "{name}");
    }
    assert!(Config::parse(b"\xff").is_err());
    assert!(Config::parse(b"").is_err());
}

#[test]
fn local_mode_needs_its_own_table() {
    let text = development();
    let start = text.find("[local]").unwrap();
    let end = text.find("[[signers]]").unwrap();
    let without = format!("{}{}", &text[..start], &text[end..]);
    assert!(Config::parse(without.as_bytes()).is_err());
    let remote_only = replaced(&without, "permitted = [\"local\", \"remote\"]", "permitted = [\"remote\"]");
    assert_eq!(Config::parse(remote_only.as_bytes()).unwrap().local, None);
}

#[test]
fn the_choice_about_signatures_is_named_where_it_was_not_made() {
    let error = Config::parse(replaced(&development(), ACCEPT, "").as_bytes()).unwrap_err().to_string();
    assert!(error.contains("images.signature_policy") && error.contains("insecureAcceptAnything"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.json");
    std::fs::write(&path, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    let by_file = format!("signature_policy = \"{}\"\n", path.display());
    Config::parse(replaced(&development(), ACCEPT, &by_file).as_bytes()).unwrap();
}

#[test]
fn the_host_gets_exactly_the_methods_that_are_named() {
    let vsock = "[listen.vsock]\nport = 1030\nallow = [\"Launch\", \"Wait\"]\n[attester]";
    let config = Config::parse(replaced(&development(), "[attester]", vsock).as_bytes()).unwrap();
    let allow = ["Launch".to_owned(), "Wait".to_owned()].into();
    assert_eq!(config.listen.vsock, Some(Vsock { port: 1030, allow }));
}

#[test]
fn a_file_that_is_not_there_or_too_large_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    let error = Config::read(&path).unwrap_err().to_string();
    assert!(error.contains("agent.toml"), "{error}");
    std::fs::write(&path, vec![b'#'; 300 * 1024]).unwrap();
    assert!(matches!(Config::read(&path), Err(ConfigError::Read { .. })));
}

/// A guest that is a sandbox, with its policy in `dir`.
fn kata(dir: &Path) -> String {
    let policy = dir.join("policy.rego");
    std::fs::write(&policy, "package agent_policy\n").unwrap();
    let digest = Sha256Digest::of(b"pause");
    format!(
        "{}\n[kata]\nlisten = \"vsock://-1:1024\"\npolicy = \"{}\"\npause_bundle = \"/pause\"\npause_digest = \"{digest}\"\n",
        development(),
        policy.display()
    )
}

#[test]
fn a_sandbox_has_its_policy_and_pause_bundle_and_nothing_more_than_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = kata(dir.path());
    let config = Config::parse(text.as_bytes()).unwrap().kata.unwrap();
    assert_eq!(config.listen.to_string(), "vsock://-1:1024");
    assert_eq!(config.policy, "package agent_policy\n");
    assert_eq!(config.pause, Pause { bundle: "/pause".into(), digest: Sha256Digest::of(b"pause") });
    assert_eq!(config.run_dir, Path::new("/run/kata-containers"));
    assert!(config.storage_drivers.is_empty() && config.devices.is_empty());
    assert!(config.kernel_modules.is_empty() && config.capabilities.is_empty());
    let hybrid = text.replace("\"vsock://-1:1024\"", "\"unix:///run/kata.sock\"\nhybrid_vsock = true");
    assert!(Config::parse(hybrid.as_bytes()).unwrap().kata.unwrap().hybrid_vsock);
}

#[test]
fn a_sandbox_that_lacks_a_security_input_or_says_something_odd_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = kata(dir.path());
    let policy = format!("policy = \"{}\"\n", dir.path().join("policy.rego").display());
    let digest = format!("pause_digest = \"{}\"\n", Sha256Digest::of(b"pause"));
    std::fs::write(dir.path().join("binary"), b"\xff").unwrap();
    let binary = format!("policy = \"{}\"\n", dir.path().join("binary").display());
    for (name, from, to) in [
        ("no policy", policy.as_str(), ""),
        ("a policy that is not there", &policy, "policy = \"/no/such.rego\"\n"),
        ("a relative policy", &policy, "policy = \"policy.rego\"\n"),
        ("a policy that is no text", &policy, &binary),
        ("no pause bundle", "pause_bundle = \"/pause\"\n", ""),
        ("no pause digest", &digest, ""),
        ("a pause digest that is none", &digest, "pause_digest = \"sha256:00\"\n"),
        ("no address", "listen = \"vsock://-1:1024\"\n", ""),
        ("an address of another kind", "vsock://-1:1024", "tcp://0.0.0.0:1024"),
        ("hybrid vsock on vsock", &digest, &format!("{digest}hybrid_vsock = true\n")),
        ("a device that is none", &digest, &format!("{digest}devices = [\"/etc/shadow\"]\n")),
        ("an unknown storage driver", &digest, &format!("{digest}storage_drivers = [\"nfs\"]\n")),
        ("another policy's digest", &digest, &format!("{digest}policy_digest = \"{}\"\n", Sha256Digest::of(b""))),
        ("an unknown key", &digest, &format!("{digest}debug = true\n")),
    ] {
        assert!(Config::parse(replaced(&text, from, to).as_bytes()).is_err(), "{name}");
    }
}

#[test]
fn production_takes_no_file_whose_digest_the_configuration_does_not_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let zeros = Sha256Digest::of(b"");
    for (line, digests) in [
        (
            format!("auth_file = {:?}\n", path("auth")),
            format!("file_digests = {{ {:?} = \"{zeros}\" }}\n", path("auth")),
        ),
        (format!("roots = [{:?}]\n", path("root")), format!("file_digests = {{ {:?} = \"{zeros}\" }}\n", path("root"))),
    ] {
        let with = |text: &str, lines: &str| replaced(text, "[registry]\n", &format!("[registry]\n{lines}"));
        let refused = Config::parse(with(&production(), &line).as_bytes());
        assert!(matches!(refused, Err(ConfigError::Production { .. })), "{line}: {refused:?}");
        Config::parse(with(&production(), &format!("{line}{digests}")).as_bytes()).unwrap();
        Config::parse(with(&development(), &line).as_bytes()).unwrap();
    }
    let policy = r#"{"default": [{"type": "reject"}]}"#;
    std::fs::write(path("policy"), policy).unwrap();
    let by_file = format!("signature_policy = {:?}\n", path("policy"));
    let digested = |digest: Sha256Digest| format!("{by_file}signature_policy_digest = \"{digest}\"\n");
    let parse = |policy: &str| Config::parse(replaced(&production(), ACCEPT, policy).as_bytes());
    assert!(matches!(parse(&by_file), Err(ConfigError::Production { .. })));
    parse(&digested(Sha256Digest::of(policy.as_bytes()))).unwrap();
    assert!(parse(&digested(zeros)).unwrap_err().to_string().contains("signature_policy_digest"));
    assert!(parse(&format!("{ACCEPT}signature_policy_digest = \"{zeros}\"\n")).is_err());

    std::fs::write(path("key"), pem()).unwrap();
    let by_key = |path: &str| {
        format!(
            "signature_policy_json = '{{\"default\": [{{\"type\": \"sigstoreSigned\", \"keyPath\": {path:?}}}]}}'\n"
        )
    };
    Config::parse(replaced(&development(), ACCEPT, &by_key(&path("key"))).as_bytes()).unwrap();
    assert!(parse(&by_key(&path("key"))).unwrap_err().to_string().contains("keyData"));
}

fn given(words: &str) -> KernelParameters {
    KernelParameters::parse(words).unwrap()
}

#[test]
fn what_the_host_says_on_the_command_line_is_applied_and_the_environment_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::parse(kata(dir.path()).as_bytes()).unwrap();
    let words = "agent.server_addr=vsock://-1:9 agent.image_pull_timeout=90 agent.hotplug_timeout=7 \
                 agent.https_proxy=http://proxy.example:3128 agent.no_proxy=a.example agent.log=debug";
    config.apply(&given(words), None).unwrap();
    let sandbox = config.kata.clone().unwrap();
    assert_eq!((sandbox.listen.to_string().as_str(), sandbox.device_time.as_secs()), ("vsock://-1:9", 7));
    assert_eq!(config.pull_time, Some(Duration::from_secs(90)));
    assert_eq!(config.registry.proxy.as_deref(), Some("http://proxy.example:3128"));
    assert_eq!(config.registry.no_proxy, ["a.example"]);
    config.apply(&given(words), Some("vsock://-1:10")).unwrap();
    assert_eq!(config.kata.unwrap().listen.to_string(), "vsock://-1:10");
}

#[test]
fn nobody_is_let_in_by_the_command_line_whom_a_production_configuration_keeps_out() {
    let dir = tempfile::tempdir().unwrap();
    let text = kata(dir.path());
    let policy = Sha256Digest::of(b"package agent_policy\n");
    let table = text.get(text.find("[kata]").unwrap()..).unwrap();
    let production = format!("{}\n{table}policy_digest = \"{policy}\"\n", production());
    for (measured, said, taken) in [
        ("vsock://-1:1024", "vsock://-1:1025", true),
        ("vsock://-1:1024", "unix:///run/a.sock", false),
        ("unix:///run/a.sock", "vsock://-1:1024", false),
        ("unix:///run/a.sock", "unix://@b", true),
        ("vsock://-1:1024", "tcp://0.0.0.0:1", false),
    ] {
        let text = replaced(&production, "vsock://-1:1024", measured);
        let mut config = Config::parse(text.as_bytes()).unwrap();
        let applied = config.apply(&given(&format!("agent.server_addr={said}")), None);
        assert_eq!(applied.is_ok(), taken, "{measured}, {said}");
        assert_eq!(applied.err().map(|error| error.code().as_str()), (!taken).then_some("boot.parameter"));
        assert_eq!(config.kata.unwrap().listen.to_string() == said, taken);
    }
    let mut config = Config::parse(text.as_bytes()).unwrap();
    config.apply(&given("agent.server_addr=unix:///run/a.sock"), None).unwrap();
}

#[test]
fn parameters_that_are_not_named_do_not_count() {
    let named = |names: &str| format!("{}\n[boot]\nparameters = {names}\n", development());
    let all = given(
        "agent.log=debug agent.server_addr=vsock://-1:9 agent.image_pull_timeout=90 agent.hotplug_timeout=7 \
                     agent.https_proxy=http://p.example:1 agent.no_proxy=a.example",
    );
    let kept = |text: &str| Measured::parse(text.as_bytes()).unwrap().permitted(&all);
    assert_eq!(kept(&development()), all);
    assert_eq!(kept(&named("[]")), KernelParameters::default());
    let expected = KernelParameters { log_level: Some("debug".to_owned()), ..Default::default() };
    assert_eq!(kept(&named("[\"log\"]")), expected);
    let names =
        "[\"log\", \"server_addr\", \"image_pull_timeout\", \"hotplug_timeout\", \"https_proxy\", \"no_proxy\"]";
    assert_eq!(kept(&named(names)), all);
    assert!(Measured::parse(named("[\"signers\"]").as_bytes()).is_err());
}

#[test]
fn initdata_counts_only_where_the_configuration_says_what_it_may_bring() {
    let with = |text: &str, lines: &str| format!("{text}\n[initdata]\n{lines}\n");
    let rules = |lines: &str| Measured::parse(with(&development(), lines).as_bytes());
    assert!(Measured::parse(development().as_bytes()).unwrap().initdata_rules().is_none());
    let whole = rules("allow = [\"policy\", \"signers\", \"attestor\", \"roots\"]\nrequired = true").unwrap();
    let whole = whole.initdata_rules().unwrap();
    assert_eq!(whole.allow.len(), 4);
    assert_eq!(whole.folder, Path::new("/run/confidential-containers/initdata"));
    for lines in ["", "allow = []", "required = true", "allow = [\"state_dir\"]\nrequired = true"] {
        assert!(rules(lines).is_err(), "{lines}");
    }
    assert!(rules("allow = []\nrequired = true\nfolder = \"initdata\"").unwrap().config().is_err());

    // With a TPM and no attestor nobody would see which initdata it is.
    let production = with(&production(), "allow = [\"signers\"]\nrequired = true");
    let refused = Config::parse(production.as_bytes());
    assert!(matches!(refused, Err(ConfigError::Production { .. })), "{refused:?}");
    let digest = Sha256Digest::of(b"initdata");
    Config::parse(format!("{production}digest = \"{digest}\"\n").as_bytes()).unwrap();
}

#[test]
fn signers_and_attestor_stand_in_the_file_or_in_the_initdata() {
    let text = development();
    let cut = |from: &str, to: &str| {
        let (start, end) = (text.find(from).unwrap(), text.find(to).unwrap());
        format!("{}{}", &text[..start], &text[end..])
    };
    for without in [cut("[attestor]", "[modes]"), cut("[[signers]]", "[registry]")] {
        assert!(matches!(Config::parse(without.as_bytes()), Err(ConfigError::Field { .. })));
    }
}
