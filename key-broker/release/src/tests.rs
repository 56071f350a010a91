use super::*;

fn claims(status: &str, simulated: bool) -> serde_json::Value {
    json!({
        "simulated": simulated,
        "submods": { "cpu0": { "ear.status": status, "ear.veraison.annotated-evidence": { "snp": {} } } },
    })
}

struct Asked {
    path: &'static str,
    claims: serde_json::Value,
    environment: Environment,
    status: Vec<Tier>,
    plugin: &'static str,
}

impl Asked {
    fn new(path: &'static str, claims: serde_json::Value) -> Self {
        Self { path, claims, environment: Environment::Production, status: vec![Tier::Affirming], plugin: "resource" }
    }

    fn by(&self, policy: &ReleasePolicy) -> Result<(), Denied> {
        let path = self.path.parse().unwrap();
        policy.release(&Question {
            plugin: self.plugin,
            method: "GET",
            path: &path,
            claims: &self.claims,
            environment: self.environment,
            status: &self.status,
        })
    }
}

fn built_in() -> ReleasePolicy {
    ReleasePolicy::compile(BUILT_IN).unwrap()
}

#[test]
fn only_affirmed_sessions_of_real_platforms_get_secrets() {
    let policy = built_in();
    let secret = |claims| Asked::new("default/key/one", claims);
    secret(claims("affirming", false)).by(&policy).unwrap();
    for (claims, why) in [
        (claims("warning", false), "status is warning, not affirming"),
        (claims("none", false), "status is none"),
        (claims("contraindicated", false), "status is contraindicated"),
        (claims("affirming", true), "SIMULATED"),
        (json!({ "simulated": false, "submods": {} }), "status is , not affirming"),
        (json!({ "simulated": false }), "status is , not"),
        (json!({ "submods": claims("affirming", false)["submods"] }), "SIMULATED"),
    ] {
        let Denied(told) = secret(claims.clone()).by(&policy).unwrap_err();
        assert!(told.contains(why), "{claims}: {told}");
    }
    let mut two = claims("affirming", false);
    two["submods"]["gpu0"] = json!({ "ear.status": "warning" });
    secret(two).by(&policy).unwrap_err();
    let mut sample = claims("affirming", false);
    sample["submods"]["cpu0"]["ear.veraison.annotated-evidence"] = json!({ "sample": { "svn": "1" } });
    secret(sample).by(&policy).unwrap_err();
    Asked { plugin: "other", ..secret(claims("affirming", false)) }.by(&policy).unwrap_err();
}

#[test]
fn development_names_warning_or_gets_nothing_for_it() {
    let policy = built_in();
    let simulated = |status| Asked {
        environment: Environment::Development,
        status,
        ..Asked::new("default/key/one", claims("warning", true))
    };
    simulated(vec![Tier::Affirming]).by(&policy).unwrap_err();
    simulated(vec![]).by(&policy).unwrap_err();
    simulated(vec![Tier::Affirming, Tier::Warning]).by(&policy).unwrap();
}

#[test]
fn golden_values_are_for_every_attested_session() {
    let policy = built_in();
    let golden = "golden/dsse/ba7816bf";
    Asked::new(golden, claims("warning", true)).by(&policy).unwrap();
    Asked::new(golden, json!({ "submods": {} })).by(&policy).unwrap_err();
    Asked::new("golden/key/ba7816bf", claims("warning", false)).by(&policy).unwrap_err();
    Asked::new("default/dsse/ba7816bf", claims("warning", false)).by(&policy).unwrap_err();
}

/// The shapes of stock resource policies, in their spelling: `=` in defaults and rules, `data` read whole, `rego.v1`.
#[test]
fn policies_of_stock_brokers_work_as_they_are() {
    let path = "vault/alice/key";
    let own = json!({ "submods": { "cpu0": { "ear.status": "warning",
        "ear.veraison.annotated-evidence": { "sample": { "productId": "alice", "svn": 2 } } } } });
    let real = json!({ "submods": { "cpu0": { "ear.status": "warning",
        "ear.veraison.annotated-evidence": { "snp": { "measurement": "00" } } } } });
    let by_owner = "package policy\n\ndefault allow = false\n\nallow if {\n\tcount(data[\"resource-path\"]) == 3\n\
                    \tdata.plugin == \"resource\"\n\
                    \tinput[\"submods\"][\"cpu0\"][\"ear.veraison.annotated-evidence\"][\"sample\"][\"productId\"] == \
                    data[\"resource-path\"][1]\n}\n";
    let no_sample = "package policy\ndefault allow = false\nplugin = data.plugin\nallow if {\n\tplugin == \"resource\"\n\
                     \tnot input[\"submods\"][\"cpu0\"][\"ear.veraison.annotated-evidence\"][\"sample\"]\n}\n";
    let affirming = "package policy\nimport rego.v1\ndefault allow = false\nallow if {\n\tnot bad\n\
                     \tcount(input.submods) > 0\n}\nbad if {\n\tsome _, submod in input.submods\n\
                     \tsubmod[\"ear.status\"] != \"affirming\"\n}\n";
    let svn = "package policy\nimport rego.v1\ndefault allow := false\nneeds := {\"key\": 2, \"other\": 3}\nallow if {\n\
               \tdata[\"resource-path\"][0] == \"vault\"\n\
               \tneeds[data[\"resource-path\"][2]] <= \
               input[\"submods\"][\"cpu0\"][\"ear.veraison.annotated-evidence\"][\"sample\"][\"svn\"]\n}\n";
    let everything = "package policy\ndefault allow = false\nallow if { data.plugin == \"resource\" }\n";
    let nothing = "package policy\ndefault allow = false\n";
    let no_query = "package policy\nallow if data.query == {}\n";
    for (text, of_own, of_real) in [
        (by_owner, true, false),
        (no_sample, false, true),
        (affirming, false, false),
        (svn, true, false),
        (everything, true, true),
        (nothing, false, false),
        (no_query, true, true),
    ] {
        let policy = ReleasePolicy::compile(text).unwrap();
        for (claims, expected) in [(&own, of_own), (&real, of_real)] {
            let released = Asked::new(path, claims.clone()).by(&policy).is_ok();
            assert_eq!(released, expected, "{claims}\n{text}");
        }
    }
    let svn = ReleasePolicy::compile(svn).unwrap();
    Asked::new("vault/alice/other", own.clone()).by(&svn).unwrap_err();
    Asked::new("vault/alice/unknown", own).by(&svn).unwrap_err();
}

/// One question's path and claims are never another's.
#[test]
fn nothing_of_one_question_is_left_for_the_next() {
    let text = "package policy\nallow if input.who == data[\"resource-path\"][2]\n";
    let policy = ReleasePolicy::compile(text).unwrap();
    for _ in 0..3 {
        Asked::new("a/b/one", json!({ "who": "one" })).by(&policy).unwrap();
        Asked::new("a/b/two", json!({ "who": "one" })).by(&policy).unwrap_err();
        Asked::new("a/b/one", json!({})).by(&policy).unwrap_err();
        Asked::new("a/b/two", json!({ "who": "two" })).by(&policy).unwrap();
    }
}

#[test]
fn whatever_is_not_true_denies() {
    let by = |rule: &str| {
        let policy = ReleasePolicy::compile(&format!("package policy\n{rule}\n")).unwrap();
        Asked::new("a/b/c", json!({ "one": 1 })).by(&policy).map_err(|Denied(why)| why)
    };
    by("allow := true").unwrap();
    for (rule, why) in [
        ("allow := false", "false"),
        ("allow if input.two", "undefined"),
        ("allow := \"true\"", "neither"),
        ("allow := 1", "neither"),
        ("allow := {\"allowed\": true}", "neither"),
        ("allow if to_number(data.plugin) == 1", "could not be evaluated"),
        ("default allow := false\nreasons contains \"not you\" if input.one == 1", "not you"),
    ] {
        let told = by(rule).unwrap_err();
        assert!(told.contains(why), "{rule}: {told}");
    }
}

#[test]
fn an_unusable_policy_is_no_policy() {
    for (text, error) in [
        ("", "Rego"),
        ("package policy\nallow if {", "Rego"),
        ("package agent_policy\nallow := true", "`agent_policy`"),
        ("package policy\nallowed := true", "`allow`"),
        ("package policy\nallow := to_number(\"x\")", "Rego"),
    ] {
        let told = ReleasePolicy::compile(text).unwrap_err().to_string();
        assert!(told.contains(error), "{text}: {told}");
    }
}

/// The documentation's example is a policy, and means what the text says.
#[test]
fn the_documented_example_gives_a_teams_keys_to_its_guests() {
    let document = include_str!("../../../docs/resource-policy.md");
    let text = document.split("```rego\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy = ReleasePolicy::compile(text).unwrap();
    let measurement: String = (0u8..48).map(|byte| format!("{byte:02x}")).collect();
    let of = |status: &str, measurement: &str| {
        json!({ "submods": { "cpu0": { "ear.status": status,
            "ear.veraison.annotated-evidence": { "snp": { "measurement": measurement } } } } })
    };
    Asked::new("team-a/key/one", of("affirming", &measurement)).by(&policy).unwrap();
    Asked::new("team-a/key/one", of("warning", &measurement)).by(&policy).unwrap_err();
    Asked::new("team-b/key/one", of("affirming", &measurement)).by(&policy).unwrap_err();
    let Denied(why) = Asked::new("team-a/key/one", of("affirming", "00")).by(&policy).unwrap_err();
    assert!(why.contains("team A"), "{why}");
    Asked::new("golden/dsse/00", of("warning", "00")).by(&policy).unwrap();
}
