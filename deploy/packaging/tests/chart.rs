//! The Helm chart: `helm` takes it, Kubernetes' schemas take what it makes, and what must not be left out is asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::chart::{EXAMPLES, chart, checked, helm, helm_on, objects, of, template};
use support::workspace;

#[test]
fn helm_lints_every_set_of_values() {
    for example in EXAMPLES {
        let values = chart().join(format!("examples/{example}.yaml"));
        let seen = helm(&["lint", "--strict", "--values", values.to_str().unwrap()]);
        assert!(seen.ok, "{example}: {}{}", seen.out, seen.err);
    }
}

#[test]
fn the_archive_is_the_chart_and_has_the_version_of_what_it_installs() {
    let folder = tempfile::tempdir().unwrap();
    let archive = packaging::chart::archive(&workspace(), folder.path(), support::EPOCH).unwrap();
    let values = chart().join("examples/production-postgres.yaml");
    let arguments = ["template", "tcl", "--namespace", "attestation", "--values", values.to_str().unwrap()];
    let packed = helm_on(&archive, &arguments);
    assert!(packed.ok, "{}", packed.err);
    assert_eq!(packed.out, template("production-postgres", &[]).out);
    let shown = helm_on(&archive, &["show", "chart"]).out;
    for line in ["version", "appVersion"] {
        assert!(
            shown.lines().any(|shown| shown == format!("{line}: {}", env!("CARGO_PKG_VERSION"))),
            "{line}: {shown}"
        );
    }
}

#[test]
fn every_set_of_values_makes_objects_that_kubernetes_knows() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = |example: &str| -> BTreeSet<String> {
        objects(folder.path(), example).iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect()
    };
    let attestor = ["ConfigMap", "Service", "PodDisruptionBudget"];
    let embedded = kinds("production-embedded");
    assert!(
        attestor.iter().chain(&["StatefulSet", "NetworkPolicy", "ServiceMonitor"]).all(|kind| embedded.contains(*kind))
    );
    assert!(!embedded.contains("Deployment"), "a file has one process");
    let postgres = kinds("production-postgres");
    assert!(
        attestor.iter().chain(&["Deployment", "RuntimeClass"]).all(|kind| postgres.contains(*kind)),
        "{postgres:?}"
    );
    assert!(!postgres.contains("StatefulSet"), "{postgres:?}");
    let development = kinds("development");
    assert!(!development.contains("NetworkPolicy") && !development.contains("RuntimeClass"), "{development:?}");
}

#[test]
fn the_schemas_refuse_what_kubernetes_would() {
    let folder = tempfile::tempdir().unwrap();
    let good = template("production-embedded", &[]).out;
    for (from, to) in [
        ("terminationGracePeriodSeconds:", "terminationGracePeriod:"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: 'no'"),
        ("maxUnavailable: 1", "maxUnavailable: []"),
        ("monitoring.coreos.com/v1", "monitoring.coreos.com/v9"),
        ("  serviceName:", "  replicas: 2\n  serviceName:"),
    ] {
        assert!(good.contains(from), "{from}");
        checked(folder.path(), &good.replace(from, to)).expect_err(to);
    }
}

#[test]
fn what_is_needed_is_asked_for_by_name() {
    for (example, set, asked) in [
        ("production-embedded", "attestor.environment=", "attestor.environment"),
        ("production-embedded", "attestor.environment=staging", "environment"),
        ("production-embedded", "attestor.image.repository=", "attestor.image.repository"),
        ("production-embedded", "attestor.image.digest=", "attestor.image.digest"),
        ("production-embedded", "attestor.image.digest=sha256:0", "digest"),
        ("development", "attestor.image.tag=", "attestor.image.tag"),
        ("production-embedded", "attestor.store.kind=", "attestor.store.kind"),
        ("production-embedded", "attestor.signingKey.secret=", "attestor.signingKey.secret"),
        ("production-embedded", "attestor.storeKey.secret=", "attestor.storeKey.secret"),
        ("production-embedded", "attestor.tls.mode=", "attestor.tls.mode"),
        ("production-embedded", "attestor.tls.secret=", "attestor.tls.secret"),
        ("production-embedded", "json:attestor.administrators.tokens=[]", "attestor.administrators"),
        ("production-embedded", "attestor.administrators.closed=true", "attestor.administrators"),
        ("production-embedded", "json:attestor.configuration.signers=[]", "attestor.configuration.signers"),
        (
            "production-embedded",
            "json:attestor.configuration.policy.registers=[]",
            "attestor.configuration.policy.registers",
        ),
        ("production-embedded", "attestor.configuration.store=x", "store"),
        ("production-embedded", "attestor.drainSeconds=5", "drainSeconds"),
        ("production-embedded", "attestor.typo=1", "typo"),
        ("production-postgres", "attestor.store.postgres.host=", "attestor.store.postgres.host"),
        ("production-postgres", "attestor.store.postgres.user=", "attestor.store.postgres.user"),
        ("production-postgres", "attestor.store.postgres.database=", "attestor.store.postgres.database"),
        ("production-postgres", "attestor.store.postgres.root.secret=", "attestor.store.postgres.root.secret"),
        ("production-postgres", "installer.image.repository=", "installer.image.repository"),
        ("production-postgres", "installer.image.digest=", "installer.image.digest"),
        ("production-postgres", "installer.guest.kernelParameters=", "installer.guest.kernelParameters"),
        ("production-postgres", "installer.folder=opt", "folder"),
        ("production-postgres", "json:attestor.configuration.admin={}", "attestor.administrators"),
    ] {
        let seen = match set.strip_prefix("json:") {
            Some(set) => template(example, &["--set-json", set]),
            None => template(example, &["--set", set]),
        };
        assert!(!seen.ok && seen.err.contains(asked), "{example} with {set}: {}", seen.err);
    }
}

/// The rules of the strictest pod security standard that an attestor can be held to, and ours.
#[test]
fn attestors_have_no_rights() {
    let folder = tempfile::tempdir().unwrap();
    for example in EXAMPLES {
        let objects = objects(folder.path(), example);
        let owner = objects.iter().find(|one| ["StatefulSet", "Deployment"].contains(&one["kind"].as_str().unwrap()));
        let pod = &owner.unwrap()["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{example}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{example}");
        assert_eq!(pod["securityContext"]["runAsUser"], packaging::attestor::USER, "{example}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{example}");
        let container = &pod["containers"][0];
        let rights = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
        });
        assert_eq!(container["securityContext"], rights, "{example}");
        let paths = |probe: &str| container[probe]["httpGet"]["path"].clone();
        assert_eq!(
            (paths("livenessProbe"), paths("readinessProbe")),
            (json!("/healthz"), json!("/readyz")),
            "{example}"
        );
        let volumes: Vec<&Value> = pod["volumes"].as_array().unwrap().iter().collect();
        assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "{example}");
        // Every mount has its volume, or the volume claim.
        for mount in container["volumeMounts"].as_array().unwrap() {
            let known = volumes.iter().any(|volume| volume["name"] == mount["name"])
                || owner.unwrap()["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == mount["name"];
            assert!(known, "{example}: {mount}");
        }
    }
}

#[test]
fn values_are_what_they_were_in_the_attestors_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let limits = json!({
        "burst": 34_359_738_368_u64, "per_second": 1_000_000, "share": 0.5, "odd key": "\"<&>\\\n\t€ '''", "no": false
    });
    let registry = json!({
        "file_digests": {"/path/auth.json": "sha256:0"}, "roots": [], "nested": [[1, 2], [{"a": {"b": [true]}}]]
    });
    let values = json!({"attestor": {"configuration": {"limits": limits, "registry": registry}}});
    let path = folder.path().join("values.json");
    std::fs::write(&path, values.to_string()).unwrap();
    let seen = template("production-embedded", &["--values", path.to_str().unwrap()]);
    assert!(seen.ok, "{}", seen.err);
    let objects = checked(folder.path(), &seen.out).unwrap();
    let text = of(&objects, "ConfigMap").into_iter().find_map(|map| map["data"]["key-broker.toml"].as_str()).unwrap();
    let read: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    let read = serde_json::to_value(read).unwrap();
    for (key, value) in limits.as_object().unwrap() {
        assert_eq!(&read["limits"][key], value, "{key}: {text}");
    }
    assert_eq!(read["registry"], registry, "{text}");
}

/// The nodes' side needs a namespace of its own, whose pods may have the node's files.
#[test]
fn nodes_are_made_ready_by_a_release_without_an_attestor() {
    let folder = tempfile::tempdir().unwrap();
    let seen = template("production-postgres", &["--set", "attestor.enabled=false"]);
    let objects = checked(folder.path(), &seen.out).unwrap();
    assert_eq!(of(&objects, "DaemonSet").len(), 1);
    assert!(of(&objects, "Deployment").is_empty() && of(&objects, "Service").is_empty());
    // Whoever may patch nodes is not whoever may patch the DaemonSet, and neither may more.
    let rules = |kind| of(&objects, kind)[0]["rules"].as_array().unwrap().clone();
    assert_eq!(rules("ClusterRole"), [json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]})]);
    assert_eq!(rules("Role")[0]["resourceNames"], json!([of(&objects, "DaemonSet")[0]["metadata"]["name"]]));
}

#[test]
fn what_is_said_after_an_installation_fits_the_release() {
    for (example, said) in [
        ("production-postgres", "deployment/"),
        ("production-embedded", "statefulset/"),
        ("development", "DEVELOPMENT"),
    ] {
        let values = chart().join(format!("examples/{example}.yaml"));
        let seen = helm(&["install", "tcl", "--dry-run=client", "--values", values.to_str().unwrap()]);
        let notes = seen.out.split_once("NOTES:").unwrap_or_else(|| panic!("{example}: {}", seen.err)).1.to_owned();
        assert!(notes.contains(said) && notes.contains("--print-key"), "{example}: {notes}");
    }
}

#[test]
fn another_configuration_makes_other_pods() {
    let digest = |set: &str| {
        let seen = template("production-embedded", &["--set", set]);
        assert!(seen.ok, "{}", seen.err);
        seen.out.lines().find(|line| line.contains("checksum/configuration")).unwrap().to_owned()
    };
    let one = digest("attestor.configuration.token_seconds=300");
    assert_eq!(one, digest("attestor.podDisruptionBudget.enabled=false"));
    assert_ne!(one, digest("attestor.configuration.token_seconds=301"));
    assert_ne!(one, digest("attestor.files.more=text"));
}

#[test]
fn the_class_of_the_chart_is_the_one_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let by_chart = objects(folder.path(), "production-postgres");
    let mut by_chart = of(&by_chart, "RuntimeClass")[0].clone();
    by_chart["metadata"].as_object_mut().unwrap().remove("labels");
    let text = std::fs::read_to_string(workspace().join("deploy/kata/runtimeclass.yaml")).unwrap();
    assert_eq!(checked(folder.path(), &text).unwrap(), [by_chart]);
}
