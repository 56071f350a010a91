//! The table of configurations that are taken and refused.

use protocols::keys::{KeyKind, SigningKey};

use super::*;

fn pem() -> String {
    SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap()
}

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
