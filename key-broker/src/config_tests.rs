//! Configurations that must not start, and the one in the guide.

use protocols::keys::KeyKind;

use verifier::{ExpectedMeasurement, UserData};

use super::*;

struct Files {
    directory: tempfile::TempDir,
    key: String,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let signing = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        std::fs::write(directory.path().join("signing.pem"), signing.to_pem().unwrap().as_bytes()).unwrap();
        std::fs::write(directory.path().join("admin.token"), "0123456789abcdef0123456789abcdef\n").unwrap();
        std::fs::write(directory.path().join("store.key"), "5a".repeat(32)).unwrap();
        let key = SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap();
        Self { directory, key }
    }

    fn text(&self) -> String {
        let Self { directory, key } = self;
        let directory = directory.path().display();
        format!(
            r#"
environment = "development"
listen = "127.0.0.1:8080"
store = "{directory}/broker.redb"
store_key = {{ file = "{directory}/store.key" }}
signing_key = "{directory}/signing.pem"
challenge_seconds = 120
token_seconds = 300
revocation_seconds = 0
admin_token = "{directory}/admin.token"

[[signers]]
issuer = "release@example.com"
key = """{key}"""
min_version = 1
revocations = "optional"

[registry]
plain_http = ["127.0.0.1:5000"]
stall_seconds = 30

[policy]
registers = ["tpm-listed", "software"]

[[tpm.ak]]
key = """{key}"""
simulated = true
"#
        )
    }

    fn settings(&self, edit: impl FnOnce(String) -> String) -> Result<Settings, ConfigError> {
        Config::parse(&edit(self.text()))?.settings()
    }

    fn refused(&self, edit: impl FnOnce(String) -> String) -> String {
        self.settings(edit).unwrap_err().to_string()
    }
}

#[test]
fn the_guides_configuration_is_read_whole() {
    let files = Files::new();
    let settings = files.settings(|text| text).unwrap();
    assert_eq!(settings.evidence.registers, [RegisterKind::TpmListed, RegisterKind::Software]);
    assert_eq!(settings.evidence.tpm.aks.len(), 1);
    assert!(settings.evidence.tpm.aks[0].simulated);
    assert_eq!(settings.evidence.tpm.aks[0].enrolment, Enrolment::Listed);
    assert_eq!(settings.evidence.tpm.pcr, 14);
    assert!(settings.admin.first.is_none());
    assert_eq!(settings.registry.plain_http, ["127.0.0.1:5000"]);
    assert_eq!(settings.evidence.snp.measurements, ExpectedMeasurement::AnyMeasurement);
    assert_eq!(settings.pause, None);
}

#[test]
fn pause_bundles_are_listed_by_digest_and_decide() {
    let files = Files::new();
    let digest = Sha256Digest::of(b"bundle");
    let listed =
        files.settings(|text| text.replace("[policy]\n", &format!("[policy]\npause = [\"{digest}\"]\n"))).unwrap();
    assert_eq!(listed.pause, Some(vec![digest]));
    assert_ne!(listed.policy, files.settings(|text| text).unwrap().policy);
    assert!(files.refused(|text| text.replace("[policy]\n", "[policy]\npause = [\"sha256:0\"]\n")).contains("digest"));
}

#[test]
fn what_is_left_out_is_not_trusted() {
    let files = Files::new();
    let path = files.directory.path().join("admin.token").display().to_string();
    let no_admin = files.settings(|text| text.replace(&format!("admin_token = \"{path}\"\n"), "")).unwrap();
    // No administrator: the first start makes one, and nothing else does.
    assert!(no_admin.admin.tokens.is_empty() && no_admin.admin.first.is_some());
    for field in
        ["signing_key", "listen", "store", "store_key", "challenge_seconds", "token_seconds", "revocation_seconds"]
    {
        let without =
            |text: String| text.lines().filter(|line| !line.starts_with(field)).collect::<Vec<_>>().join("\n");
        assert!(files.refused(without).contains(field), "{field}");
    }
    assert!(
        files
            .refused(|text| text.replace("[policy]\nregisters = [\"tpm-listed\", \"software\"]\n", ""))
            .contains("policy")
    );
    assert!(files.refused(|text| text.replace("[\"tpm-listed\", \"software\"]", "[]")).contains("policy.registers"));
}

#[test]
fn production_is_the_default_and_trusts_nothing_simulated() {
    let files = Files::new();
    let production = |text: String| {
        text.replace("environment = \"development\"\n", "").replace("plain_http = [\"127.0.0.1:5000\"]\n", "")
    };
    let plain = |text: String| {
        production(text)
            .replace("simulated = true", "simulated = false")
            .replace("[registry]", "[registry]\nplain_http = [\"r:1\"]")
    };
    assert!(files.refused(plain).contains("registry.plain_http"));
    let real = files.settings(|text| production(text).replace("simulated = true", "simulated = false")).unwrap();
    assert_eq!(real.evidence.environment, Environment::Production);
    assert_eq!(real.evidence.snp.measurements, ExpectedMeasurement::Listed(Vec::new()));
    assert_eq!(real.pause, Some(Vec::new()));
}

/// Everything in a configuration that can be simulated, told by the file or by its own mark alone.
#[test]
fn production_starts_with_nothing_simulated() {
    let files = Files::new();
    let directory = files.directory.path();
    simulated_tee::tdx::Machine::create(directory).unwrap();
    simulated_tee::Pki::create(directory).unwrap();
    let path = directory.display();
    let snp = format!("[[snp.root]]\npath = \"{path}/ark.pem\"\n");
    let tdx = format!("[tdx]\nroot = [{{ path = \"{path}/tdx-root.pem\" }}]\n[tdx.require]\nminimum_evaluation = 1\n");
    let rows = [
        ("tpm.ak", String::new(), "simulated = true"),
        ("snp.root", format!("{snp}simulated = true\n"), "simulated = false"),
        ("snp.root", snp, "simulated = false"),
        ("tdx.root", tdx.replace(" }]", ", simulated = true }]"), "simulated = false"),
        ("tdx.root", tdx, "simulated = false"),
        (
            "tdx.collateral",
            format!("[tdx]\nintel_root = true\ncollateral = \"{path}\"\nrequire.minimum_evaluation = 1\n"),
            "simulated = false",
        ),
    ];
    for (expected, more, ak) in rows {
        let text = format!("{}\n{more}", files.text().replace("simulated = true", ak));
        let text = text.replace("plain_http = [\"127.0.0.1:5000\"]\n", "");
        Config::parse(&text).unwrap().settings().unwrap();
        let refused =
            Config::parse(&text.replace("\"development\"", "\"production\"")).unwrap().settings().unwrap_err();
        assert!(matches!(refused, ConfigError::Environment { field, .. } if field == expected), "{more}: {refused}");
        assert!(refused.to_string().contains("(policy.environment)"), "{refused}");
    }
}

/// Cut at the bound, it would be another configuration, which may well be one.
#[test]
fn a_file_that_is_too_long_is_refused_and_not_cut() {
    let files = Files::new();
    let path = files.directory.path().join("admin.token");
    let token = std::fs::read(&path).unwrap();
    let padded = |size: u64| {
        let mut bytes = token.clone();
        bytes.resize(usize::try_from(size).unwrap(), b'\n');
        bytes
    };
    std::fs::write(&path, padded(MAX_FILE)).unwrap();
    files.settings(|text| text).unwrap();
    std::fs::write(&path, padded(MAX_FILE + 1)).unwrap();
    assert!(files.refused(|text| text).contains("admin.token"));
}

#[test]
fn unknown_fields_and_unusable_values_are_named() {
    let files = Files::new();
    assert!(files.refused(|text| text.replace("min_version", "minimum_version")).contains("minimum_version"));
    assert!(files.refused(|text| format!("acess = 1\n{text}")).contains("acess"));
    assert!(
        files.refused(|text| text.replace("challenge_seconds = 120", "challenge_seconds = 0")).contains("challenge")
    );
    assert!(
        files.refused(|text| text.replace("token_seconds = 300", "token_seconds = 86401")).contains("token_seconds")
    );
    let late = |text: String| text.replace("revocation_seconds = 0", "revocation_seconds = 3601");
    assert!(files.refused(late).contains("revocation_seconds"));
    assert!(files.refused(|text| text.replace("tpm-listed", "tpm")).contains("tpm"));
    assert!(files.refused(|text| text.replace("[[tpm.ak]]", "[[tpm.ak]]\nkind = \"software\"")).contains("software"));
    assert!(files.refused(|text| text.replace("[[tpm.ak]]", "[tpm]\npcr = 16\n[[tpm.ak]]")).contains("tpm.pcr"));
    let measured = |text: String| text + "\n[snp]\nmeasurements = [\"00\"]\n";
    assert!(files.refused(measured).contains("snp.measurements"));

    let write = |name: &str, content: &str| std::fs::write(files.directory.path().join(name), content).unwrap();
    write("admin.token", "short");
    assert!(files.refused(|text| text).contains("admin_token"));
    write("admin.token", "0123456789abcdef\n0123456789abcdef");
    assert!(files.refused(|text| text).contains("admin_token"));
    let ed25519 = SigningKey::generate(KeyKind::Ed25519).unwrap();
    write("signing.pem", &ed25519.to_pem().unwrap());
    assert!(files.refused(|text| text).contains("signing_key"));
}

#[test]
fn the_policys_digest_changes_with_everything_that_decides_and_nothing_else() {
    let files = Files::new();
    let policy = |edit: &dyn Fn(String) -> String| files.settings(edit).unwrap().policy;
    let base = policy(&|text| text);
    assert_eq!(policy(&|text| text.replace("127.0.0.1:8080", "127.0.0.1:8081")), base);
    for (from, to) in [
        ("challenge_seconds = 120", "challenge_seconds = 121"),
        ("token_seconds = 300", "token_seconds = 301"),
        ("revocation_seconds = 0", "revocation_seconds = 1"),
        ("min_version = 1", "min_version = 2"),
        ("revocations = \"optional\"", "revocations = \"required\""),
        ("release@example.com", "another@example.com"),
        (", \"software\"", ""),
        ("simulated = true", "simulated = false"),
        ("[[tpm.ak]]", "[tpm]\npcr = 11\n[[tpm.ak]]"),
        ("[[tpm.ak]]", "[[tpm.ak]]\nkind = \"tpm-ek\""),
    ] {
        assert_ne!(policy(&|text| text.replace(from, to)), base, "{to}");
    }
    for more in [
        "[snp]\nmeasurements = []",
        "[snp]\nvmpl = 1",
        "[snp]\nchips = []",
        "[snp]\nproviders = [\"p\"]",
        "[snp.amd.milan]\nminimum_tcb = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }",
        "[snp.amd.turin]\nminimum_tcb = { fmc = 1, bootloader = 4, tee = 0, snp = 24, microcode = 219 }",
        "[azure]",
        "[azure]\nmeasurements = []",
        "[azure.tdx]\nsept_ve_disable = true",
        "[azure.tdx]\nsept_ve_disable = false",
    ] {
        assert_ne!(policy(&|text| format!("{text}\n{more}\n")), base, "{more}");
    }
}

#[test]
fn amds_products_and_azure_count_only_where_they_are_named() {
    let files = Files::new();
    let none = files.settings(|text| text).unwrap().evidence;
    assert!(none.snp.roots.is_empty() && none.azure.snp.roots.is_empty());
    assert_eq!(none.azure.snp.measurements, ExpectedMeasurement::Listed(Vec::new()));
    assert_eq!((none.snp.vmpl, none.azure.user_data), (0, UserData::Nonce));

    let milan = "\n[snp]\nvmpl = 2\nproviders = [\"p\"]\n[snp.amd.milan]\nminimum_tcb = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }\n";
    let named = files.settings(|text| text + milan).unwrap().evidence;
    assert_eq!((named.snp.roots.len(), named.azure.snp.roots.len()), (1, 0));
    assert_eq!((named.snp.roots[0].minimum_tcb().snp, named.snp.vmpl), (24, 2));
    let azure = format!("{milan}[azure]\nmeasurements = [\"{}\"]\n", "ab".repeat(48));
    let both = files.settings(|text| text + &azure).unwrap().evidence;
    assert_eq!((both.azure.snp.roots.len(), both.azure.snp.vmpl), (1, 0));
    assert_eq!(both.azure.snp.measurements, ExpectedMeasurement::Listed(vec![[0xAB; 48]]));

    let refused = |more: &str| files.refused(|text| text + more);
    assert!(refused("\n[snp.amd.milan]\n").contains("minimum_tcb"), "no product without a minimum");
    assert!(refused("\n[snp]\nchips = [\"00\"]\n").contains("snp.chips"));
    assert!(refused("\n[azure]\nmeasurements = [\"00\"]\n").contains("azure.measurements"));
    let crl = files.directory.path().join("crl");
    std::fs::write(&crl, [0x30, 0]).unwrap();
    let text = format!("{milan}crl = \"{}\"\n", crl.display());
    assert!(refused(&text).contains("revocation list"));
}

/// `[tdx]` with a simulated platform's files.
fn with_tdx(files: &Files, require: &str) -> String {
    let directory = files.directory.path();
    if !directory.join("tdx-root.pem").exists() {
        simulated_tee::tdx::Machine::create(directory).unwrap();
    }
    let directory = directory.display();
    format!(
        "{}\n[tdx]\ncollateral = \"{directory}\"\nroot = [{{ path = \"{directory}/tdx-root.pem\", simulated = true }}]\n\
         [tdx.require]\n{require}\n",
        files.text()
    )
}

#[test]
fn tdx_is_closed_unless_it_is_configured() {
    let files = Files::new();
    let tdx = files.settings(|text| text).unwrap().evidence.tdx;
    assert!(tdx.roots.is_empty() && tdx.collateral.is_empty());
    let intel = files.settings(|text| format!("{text}\n[tdx]\nintel_root = true\nrequire.minimum_evaluation = 17\n"));
    let tdx = intel.unwrap().evidence.tdx;
    assert_eq!((tdx.roots.len(), tdx.roots[0].simulated(), tdx.minimum_evaluation), (1, false, 17));
    assert_eq!(tdx.statuses, [verifier::tdx::TcbStatus::UpToDate]);
    assert!(tdx.advisories.is_empty());
}

#[test]
fn tdx_platforms_are_read_from_files() {
    let files = Files::new();
    let settings = files.settings(|_| with_tdx(&files, "minimum_evaluation = 1")).unwrap();
    let tdx = settings.evidence.tdx;
    assert_eq!((tdx.roots.len(), tdx.collateral.len()), (1, 1));
    assert!(tdx.roots[0].simulated() && tdx.collateral[0].simulated());
    assert_eq!(tdx.measurements, verifier::TdxMeasurements::ANY);

    // Everything that is demanded decides.
    let hex = "0a".repeat(48);
    let mut digests = vec![settings.policy];
    for require in [
        "minimum_evaluation = 2".to_owned(),
        "minimum_evaluation = 1\ntcb_status = [\"UpToDate\", \"SWHardeningNeeded\"]".to_owned(),
        "minimum_evaluation = 1\nadvisories = [\"INTEL-SA-00001\"]".to_owned(),
        format!("minimum_evaluation = 1\nmrtd = [\"{hex}\"]"),
        format!("minimum_evaluation = 1\nrtmr0 = [\"{hex}\"]"),
        format!("minimum_evaluation = 1\nrtmr1 = [\"{hex}\"]"),
        format!("minimum_evaluation = 1\nrtmr2 = [\"{hex}\"]"),
    ] {
        let digest = files.settings(|_| with_tdx(&files, &require)).unwrap().policy;
        assert!(!digests.contains(&digest), "{require}");
        digests.push(digest);
    }
    assert!(!digests.contains(&files.settings(|text| text).unwrap().policy), "the root does too");
}

#[test]
fn tdx_tables_that_cannot_be_meant_are_refused() {
    let files = Files::new();
    let refused = |require: &str| files.refused(|_| with_tdx(&files, require));
    assert!(refused("").contains("minimum_evaluation"));
    assert!(refused("minimum_evaluation = 1\nmrtd = [\"00\"]").contains("tdx.require.mrtd"));
    assert!(refused("minimum_evaluation = 1\ntcb_status = [\"Fine\"]").contains("Fine"));
    assert!(refused("minimum_evaluation = 1\nrtmr3 = []").contains("rtmr3"));
    let production = |text: String| text.replace("\"development\"", "\"production\"").replace("simulated = true\n", "");
    assert!(files.refused(|_| production(with_tdx(&files, "minimum_evaluation = 1"))).contains("simulated root"));
    std::fs::write(files.directory.path().join("other.json"), "{}").unwrap();
    assert!(refused("minimum_evaluation = 1").contains("other.json"));
}

#[test]
fn azures_tds_count_only_where_they_are_named_and_sept_ve_disable_is_decided() {
    let files = Files::new();
    let base = with_tdx(&files, "minimum_evaluation = 1");
    let with = |more: &str| {
        let text = format!("{base}{more}\n");
        move |_: String| text
    };
    let none = files.settings(with("")).unwrap().evidence.azure_tdx;
    assert!(none.tdx.roots.is_empty() && none.tdx.collateral.is_empty());
    assert_eq!((none.sept_ve, none.user_data), (verifier::SeptVe::Required, UserData::Nonce));
    let snp_only = files.settings(with("[azure]")).unwrap().evidence.azure_tdx;
    assert!(snp_only.tdx.roots.is_empty());

    let (hex, other) = ("0a".repeat(48), "0b".repeat(48));
    let table = format!("[azure.tdx]\nsept_ve_disable = false\nmrtd = [\"{hex}\"]\nrtmr0 = [\"{other}\"]");
    let named = files.settings(with(&table)).unwrap();
    let azure = named.evidence.azure_tdx;
    assert_eq!(
        (azure.tdx.roots.len(), azure.tdx.collateral.len(), azure.sept_ve),
        (1, 1, verifier::SeptVe::NotRequired)
    );
    assert_eq!(azure.tdx.measurements.mr_td, ExpectedMeasurement::Listed(vec![[0x0A; 48]]));
    // A bare TD keeps its own list, and may not be without it.
    assert_eq!(named.evidence.tdx.measurements, verifier::TdxMeasurements::ANY);
    assert!(named.references.values()["azure.tdx.mrtd"].contains(&hex));
    assert!(named.references.values()["azure.tdx.rtmr0"].contains(&other));
    let required = files.settings(with(&table.replace("false", "true"))).unwrap();
    assert_eq!(required.evidence.azure_tdx.sept_ve, verifier::SeptVe::Required);
    assert_ne!(required.policy, named.policy);

    assert!(files.refused(with("[azure.tdx]")).contains("sept_ve_disable"), "nothing is decided silently");
    let wrong = "[azure.tdx]\nsept_ve_disable = false\nrtmr2 = [\"00\"]";
    assert!(files.refused(with(wrong)).contains("azure.tdx.rtmr2"));
}

#[test]
fn an_appraisal_policy_or_reference_value_that_cannot_be_used_stops_the_start_and_both_decide() {
    let files = Files::new();
    let rego = files.directory.path().join("appraisal.rego");
    let named = |text: String| format!("{text}\n[appraisal]\npolicy = \"{}\"\n", rego.display());
    assert!(files.refused(named).contains("appraisal.rego"), "a policy that is not there is not the built-in one");
    std::fs::write(&rego, "package appraisal\n").unwrap();
    assert!(files.refused(named).contains("trust_vector"));
    std::fs::write(&rego, format!("{}\n", appraisal::policy::BUILT_IN)).unwrap();
    let plain = files.settings(|text| text).unwrap();
    let other = files.settings(named).unwrap();
    assert_ne!(plain.policy, other.policy);

    let listing = |name: &str, value: &str| {
        let section = format!("\n[reference.values]\n\"{name}\" = [\"{value}\"]\n");
        move |text: String| text + &section
    };
    let pcr = files.settings(listing("tpm.pcr4", &"AB".repeat(32))).unwrap();
    assert!(pcr.references.values()["tpm.pcr4"].contains(&"ab".repeat(32)));
    assert_ne!(plain.policy, pcr.policy);
    for (name, value) in [("tpm.pcr4", "ab"), ("tpm.pcr24", &*"ab".repeat(32)), ("pcr4", &"ab".repeat(32))] {
        assert!(files.refused(listing(name, value)).contains("reference.values"), "{name}");
    }
    let measured = |text: String| text + &format!("\n[snp]\nmeasurements = [\"{}\"]\n", "ab".repeat(48));
    assert!(files.settings(measured).unwrap().references.values()["snp.measurement"].contains(&"ab".repeat(48)));
}

/// What the verifier refuses never reaches the appraisal policy: reference values must be in its lists too.
#[test]
fn the_verifiers_lists_of_measurements_take_in_reference_values() {
    let files = Files::new();
    let names = ["snp.measurement", "azure.measurement", "tdx.mrtd", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"];
    let values: String = names
        .iter()
        .zip(1u8..)
        .map(|(name, n)| format!("\"{name}\" = [\"{}\"]\n", format!("{n:02x}").repeat(48)))
        .collect();
    let section = format!("\n[azure]\nmeasurements = [\"{}\"]\n[reference.values]\n{values}", "ab".repeat(48));
    let expected = |environment: &str| {
        let text = files
            .text()
            .replace("plain_http = [\"127.0.0.1:5000\"]\n", "")
            .replace("simulated = true", "simulated = false");
        let text = text.replace("\"development\"", &format!("\"{environment}\"")) + &section;
        let settings = Config::parse(&text).unwrap().settings().unwrap();
        let policy = crate::rules::expecting(settings.evidence.clone(), &settings.references);
        let [rtmr0, rtmr1, rtmr2] = policy.tdx.measurements.rtmr;
        [policy.snp.measurements, policy.azure.snp.measurements, policy.tdx.measurements.mr_td, rtmr0, rtmr1, rtmr2]
    };
    let listed = |bytes: &[u8]| ExpectedMeasurement::Listed(bytes.iter().map(|byte| [*byte; 48]).collect());
    let production = [listed(&[1]), listed(&[0xAB, 2]), listed(&[3]), listed(&[4]), listed(&[5]), listed(&[6])];
    assert_eq!(expected("production"), production);
    let any = ExpectedMeasurement::AnyMeasurement;
    let development = [any.clone(), listed(&[0xAB, 2]), any.clone(), any.clone(), any.clone(), any];
    assert_eq!(expected("development"), development);
}

#[test]
fn files_of_reference_values_are_read_strictly_and_decide() {
    use protocols::dsse::Envelope;
    use reference_values::document::{Document, PAYLOAD_TYPE, TYPE};
    let files = Files::new();
    let key = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
    let mut values = References::default();
    values.add("tpm.pcr4", &"ab".repeat(32)).unwrap();
    let document = Document {
        document_type: TYPE.into(),
        issuer: "platform".into(),
        series: "s".into(),
        version: 1,
        issued_at: protocols::time::Timestamp(1),
        expires: protocols::time::Timestamp(2),
        environment: Environment::Development,
        values,
    };
    let dir = files.directory.path().join("reference");
    std::fs::create_dir_all(dir.join("..data")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    let sign = |document: &Document| Envelope::sign(PAYLOAD_TYPE, document.payload().unwrap(), &key).to_bytes();
    let pem = key.verifying_key().to_pem().unwrap();
    let signer = format!("[[reference.signer]]\nissuer = \"platform\"\nkey = \"\"\"{pem}\"\"\"\nmin_version = 1\n");
    let with = |more: &str| format!("{}\n[reference]\ndir = \"{}\"\n{more}", files.text(), dir.display());
    let read = |more: &str| Config::parse(&with(more)).unwrap().settings();

    write("a", &sign(&document));
    write(".hidden", b"no document");
    let one = read(&signer).unwrap();
    assert_eq!((one.documents.len(), one.documents[0].document()), (1, &document));
    assert_ne!(one.policy, files.settings(|text| text).unwrap().policy);
    write("b", &sign(&Document { version: 2, ..document.clone() }));
    let two = read(&signer).unwrap();
    assert_eq!((two.documents.len(), two.documents[0].document().version), (1, 2), "the highest of a series");
    assert_ne!(one.policy, two.policy);
    assert_ne!(
        two.policy,
        read(&signer.replace("min_version = 1", "min_version = 1\nseries = { other = 9 }")).unwrap().policy
    );

    let refused = |more: &str| read(more).unwrap_err().to_string();
    assert!(refused("").contains("reference.signer"));
    assert!(refused(&format!("{signer}{signer}")).contains("twice"));
    assert!(refused(&format!("files = [\"{}\"]\n{signer}", dir.join("e").display())).contains("/e"));
    write("c", &document.payload().unwrap());
    assert!(refused(&signer).contains("reference.unsigned"));
    let named = format!("unsigned = [\"{}\"]\n{signer}", dir.join("c").display());
    assert_eq!(read(&named).unwrap().documents.len(), 2);
    let production = with(&named)
        .replace("\"development\"", "\"production\"")
        .replace("simulated = true", "simulated = false")
        .replace("plain_http = [\"127.0.0.1:5000\"]\n", "");
    let told = Config::parse(&production).unwrap().settings().unwrap_err().to_string();
    assert!(told.contains("reference.unsigned") && told.contains("policy.environment"), "{told}");
    write("d", b"{}");
    assert!(refused(&named).contains("reference.malformed"));
}

/// What is released to whom is told by the file alone, and everything of it is in the policy's digest.
#[test]
fn releases_are_closed_unless_a_file_says_more() {
    let files = Files::new();
    let silent = files.settings(|text| text).unwrap().policy;
    let with = |lines: &'static str| move |text: String| format!("{text}\n[release]\n{lines}\n");
    assert_eq!(files.settings(with("")).unwrap().policy, silent);
    assert_eq!(files.settings(with("status = [\"affirming\"]")).unwrap().policy, silent);
    assert_ne!(files.settings(with("status = [\"affirming\", \"warning\"]")).unwrap().policy, silent);
    for lines in ["status = [\"none\"]", "status = [\"contraindicated\"]", "status = [\"fine\"]", "statuses = []"] {
        assert!(files.refused(with(lines)).contains("status"), "{lines}");
    }
    let production = |text: String| {
        text.replace("environment = \"development\"\n", "")
            .replace("plain_http = [\"127.0.0.1:5000\"]\n", "")
            .replace("simulated = true", "simulated = false")
    };
    let warned = with("status = [\"warning\"]");
    assert!(files.refused(|text| warned(production(text))).contains("release.status"));

    let policy = files.directory.path().join("release.rego");
    std::fs::write(&policy, ::release::BUILT_IN).unwrap();
    let named = format!("policy = \"{}\"", policy.display());
    let own = |more: &str| {
        let named = format!("\n[release]\n{named}\n{more}\n");
        move |text: String| text + &named
    };
    assert_eq!(files.settings(own("")).unwrap().policy, silent);
    assert!(files.refused(own("status = [\"affirming\"]")).contains("release.status"));
    std::fs::write(&policy, format!("{}\n", ::release::BUILT_IN)).unwrap();
    assert_ne!(files.settings(own("")).unwrap().policy, silent);
    std::fs::write(&policy, "package appraisal\nallow := true\n").unwrap();
    assert!(files.refused(own("")).contains("release.policy"));
}

/// How long something counts decides as well: verdicts name it.
#[test]
fn times_are_part_of_the_policys_digest() {
    let files = Files::new();
    let digest = files.settings(|text| text).unwrap().policy;
    for (from, to) in [
        ("challenge_seconds = 120", "challenge_seconds = 121"),
        ("token_seconds = 300", "token_seconds = 301"),
        ("revocation_seconds = 0", "revocation_seconds = 1"),
    ] {
        assert_ne!(files.settings(|text| text.replace(from, to)).unwrap().policy, digest, "{to}");
    }
}

#[test]
fn production_writes_no_questions_down() {
    let files = Files::new();
    let record = |text: String| format!("record = \"/nowhere\"\n{text}");
    assert!(files.settings(record).unwrap().recording.is_some());
    assert!(files.settings(|text| text).unwrap().recording.is_none());
    let production = |text: String| {
        text.replace("environment = \"development\"\n", "")
            .replace("plain_http = [\"127.0.0.1:5000\"]\n", "")
            .replace("simulated = true", "simulated = false")
    };
    assert!(files.refused(|text| record(production(text))).contains("record"));
}

#[test]
fn production_does_not_only_watch_its_policy() {
    let files = Files::new();
    let observe = |text: String| text.replace("[policy]\n", "[policy]\nmode = \"observe\"\n");
    let enforced = files.settings(|text| text).unwrap();
    let observed = files.settings(observe).unwrap();
    assert_eq!((enforced.observe, observed.observe), (false, true));
    assert_ne!(enforced.policy, observed.policy);
    let production = |text: String| {
        text.replace("environment = \"development\"\n", "")
            .replace("plain_http = [\"127.0.0.1:5000\"]\n", "")
            .replace("simulated = true", "simulated = false")
    };
    assert!(files.refused(|text| observe(production(text))).contains("policy.mode"));
    assert!(files.refused(|text| text.replace("[policy]\n", "[policy]\nmode = \"off\"\n")).contains("mode"));
}
