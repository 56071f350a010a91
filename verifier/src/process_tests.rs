use protocols::image::MountRequest;

use super::*;
use crate::testing::image;

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn mount(destination: &str) -> MountRequest {
    MountRequest { destination: destination.into(), kind: "tmpfs".into(), source: "tmpfs".into(), options: vec![] }
}

fn run(policy: Option<&ProcessPolicy>, change: impl FnOnce(&mut ProcessRequest)) -> Result<(), Mismatch> {
    let image = image().process;
    let mut request = ProcessRequest::from(&image);
    change(&mut request);
    check(&image, policy, &request)
}

fn policy(change: impl FnOnce(&mut ProcessPolicy)) -> ProcessPolicy {
    let mut policy = ProcessPolicy::default();
    change(&mut policy);
    policy
}

type Change = fn(&mut ProcessRequest);

#[test]
fn the_images_own_process_passes_without_and_with_an_empty_policy() {
    run(None, |_| {}).unwrap();
    run(Some(&ProcessPolicy::default()), |_| {}).unwrap();
}

#[test]
fn without_a_policy_nothing_may_differ() {
    let changes: [(&str, Change); 9] = [
        ("argument added", |r| r.args.push("-v".into())),
        ("argument dropped", |r| drop(r.args.pop())),
        ("no arguments", |r| r.args.clear()),
        ("environment added", |r| r.env.push("A=b".into())),
        ("environment dropped", |r| drop(r.env.pop())),
        ("environment in another order", |r| r.env.reverse()),
        ("user", |r| r.user = "root".into()),
        ("working directory", |r| r.cwd = "/".into()),
        ("mount", |r| r.mounts.push(mount("/data"))),
    ];
    for (name, change) in changes {
        run(None, change).expect_err(name);
    }
}

#[test]
fn argument_rules() {
    let image_only = ProcessPolicy::default();
    let exact = policy(|p| p.args = vec![ArgsRule::Exact(strings(&["/app", "check"]))]);
    let prefix =
        policy(|p| p.args = vec![ArgsRule::Prefix(strings(&["/app", "run"])), ArgsRule::Exact(strings(&["/x"]))]);
    let any = policy(|p| p.args = vec![ArgsRule::Prefix(vec![])]);
    let own = ["/app", "serve"];
    let cases: [(&ProcessPolicy, &[&str], bool); 14] = [
        (&image_only, &own, true),
        (&image_only, &["/app"], false),
        (&image_only, &["/app", "serve", "x"], false),
        (&exact, &["/app", "check"], true),
        (&exact, &["/app", "check", "x"], false),
        (&exact, &["/app"], false),
        (&exact, &own, false), // a list of rules stands in place of the image's own arguments
        (&prefix, &["/app", "run"], true),
        (&prefix, &["/app", "run", "a", "b"], true),
        (&prefix, &["/app", "runs"], false),
        (&prefix, &["/x"], true),
        (&prefix, &["/x", "y"], false),
        (&any, &["/bin/sh", "-c", "id"], true),
        (&any, &[], true),
    ];
    for (policy, args, allowed) in cases {
        let result = run(Some(policy), |r| r.args = strings(args));
        assert_eq!(result.is_ok(), allowed, "{args:?} under {:?}", policy.args);
    }
}

#[test]
fn environment_rules() {
    let rules = policy(|p| p.env = strings(&["LEVEL=debug", "NAME=*", "PATH=/sbin", "A=B=*", "=*", "*"]));
    let cases: [(&[&str], bool); 17] = [
        (&["PATH=/bin", "MODE=safe"], true),
        (&["MODE=safe", "PATH=/bin"], true),
        (&["PATH=/bin", "MODE=safe", "LEVEL=debug"], true),
        (&["PATH=/bin", "MODE=safe", "LEVEL=info"], false),
        (&["PATH=/bin", "MODE=safe", "NAME="], true),
        (&["PATH=/bin", "MODE=safe", "NAME=a=b"], true),
        (&["PATH=/bin", "MODE=safe", "NAMES=a"], false),
        (&["PATH=/sbin", "MODE=safe"], true), // the image's own name with an allowed value
        (&["PATH=/usr", "MODE=safe"], false),
        (&["PATH=/bin", "MODE=unsafe"], false),
        (&["PATH=/bin"], false), // left out
        (&["PATH=/bin", "MODE=safe", "PATH=/bin"], false),
        (&["PATH=/bin", "MODE=safe", "NAME=a", "NAME=b"], false),
        (&["PATH=/bin", "MODE=safe", "A=B=c"], false), // `A=B=*` is one value, not a pattern
        (&["PATH=/bin", "MODE=safe", "A=B=*"], true),
        (&["PATH=/bin", "MODE=safe", "=x"], false),
        (&["PATH=/bin", "MODE=safe", "LD_PRELOAD"], false),
    ];
    for (env, allowed) in cases {
        assert_eq!(run(Some(&rules), |r| r.env = strings(env)).is_ok(), allowed, "{env:?}");
    }
}

#[test]
fn an_environment_value_is_not_told() {
    let mismatch = run(Some(&ProcessPolicy::default()), |r| r.env.push("TOKEN=hunter2".into())).unwrap_err();
    assert!(mismatch.actual.contains("TOKEN"));
    assert!(!format!("{mismatch:?}").contains("hunter2"));
    let mismatch = run(None, |r| r.env.push("TOKEN=hunter2".into())).unwrap_err();
    assert!(!format!("{mismatch:?}").contains("hunter2"));
}

#[test]
fn user_directory_and_mount_rules() {
    let rules = policy(|p| {
        p.user = strings(&["1000:1000", "web"]);
        p.cwd = strings(&["/tmp"]);
        p.mounts = strings(&["/data", "/cache"]);
    });
    let cases: [(&str, Change, bool); 11] = [
        ("listed user", |r| r.user = "web".into(), true),
        ("the image's own user where others are listed", |_| {}, false),
        ("user that is not listed", |r| r.user = "0".into(), false),
        ("listed directory", |r| (r.user, r.cwd) = ("web".into(), "/tmp".into()), true),
        ("the image's own directory", |r| (r.user, r.cwd) = ("web".into(), "/srv".into()), true),
        ("another spelling of a directory", |r| (r.user, r.cwd) = ("web".into(), "/tmp/".into()), false),
        ("listed mounts", |r| (r.user, r.mounts) = ("web".into(), vec![mount("/data"), mount("/cache")]), true),
        ("mount that is not listed", |r| (r.user, r.mounts) = ("web".into(), vec![mount("/etc")]), false),
        ("mount below a listed one", |r| (r.user, r.mounts) = ("web".into(), vec![mount("/data/x")]), false),
        ("mount twice", |r| (r.user, r.mounts) = ("web".into(), vec![mount("/data"), mount("/data")]), false),
        ("no user", |r| r.user = String::new(), false),
    ];
    for (name, change, allowed) in cases {
        assert_eq!(run(Some(&rules), change).is_ok(), allowed, "{name}");
    }
}

#[test]
fn a_nul_byte_is_refused_wherever_it_stands() {
    let any = policy(|p| {
        p.args = vec![ArgsRule::Prefix(vec![])];
        p.env = strings(&["NAME=*"]);
        p.user = strings(&["a\0b"]);
        p.cwd = strings(&["/\0"]);
        p.mounts = strings(&["/data", "/d\0"]);
    });
    let changes: [Change; 7] = [
        |r| r.args.push("a\0b".into()),
        |r| r.env.push("NAME=a\0b".into()),
        |r| r.user = "a\0b".into(),
        |r| r.cwd = "/\0".into(),
        |r| r.mounts = vec![mount("/d\0")],
        |r| r.mounts = vec![MountRequest { source: "\0".into(), ..mount("/data") }],
        |r| r.mounts = vec![MountRequest { options: vec!["ro\0rw".into()], ..mount("/data") }],
    ];
    for change in changes {
        let mismatch = run(Some(&any), change).unwrap_err();
        assert_eq!(mismatch.actual, "a NUL byte");
    }
}

#[test]
fn what_kubernetes_adds_passes_only_where_it_was_signed_for() {
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let pod = |r: &mut ProcessRequest| {
        r.env.extend(strings(&["KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_PORT_443_TCP_PROTO=tcp"]));
        r.mounts.push(mount(token));
    };
    let signed = ProcessPolicy::default().for_kubernetes();
    run(Some(&signed), pod).unwrap();
    run(Some(&signed), |_| {}).unwrap();
    run(Some(&ProcessPolicy::default()), pod).unwrap_err();
    run(Some(&signed), |r| r.env.push("KUBERNETES_SERVICE_HOST_X=1".into())).unwrap_err();
    run(Some(&signed), |r| r.env.push("LD_PRELOAD=/x".into())).unwrap_err();
    run(Some(&signed), |r| r.mounts.push(mount("/var/run/secrets"))).unwrap_err();
    assert_eq!(signed.clone().for_kubernetes(), signed, "asking twice adds nothing");
}
