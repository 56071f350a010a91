#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

use proptest::prelude::*;
use protocols::reason;

use super::*;

fn conf(text: &str) -> RegistriesConf {
    RegistriesConf::parse(text).unwrap()
}

fn places(conf: &RegistriesConf, repository: &str, asked: Asked) -> (Vec<String>, String) {
    let places = conf.places(&repository.parse().unwrap(), asked).unwrap();
    (places.mirrors.iter().map(ToString::to_string).collect(), places.location.to_string())
}

fn location(conf: &RegistriesConf, repository: &str) -> String {
    places(conf, repository, Asked::ByName).1
}

#[test]
fn the_longest_prefix_wins_and_ends_at_a_slash() {
    let conf = conf(
        r#"
        [[registry]]
        prefix = "r.example"
        location = "one.example"
        [[registry]]
        prefix = "r.example/team/app"
        location = "three.example/exact"
        [[registry]]
        prefix = "r.example/team"
        location = "two.example/t"
    "#,
    );
    assert_eq!(location(&conf, "r.example/other"), "one.example/other");
    assert_eq!(location(&conf, "r.example/teamwork/x"), "one.example/teamwork/x");
    assert_eq!(location(&conf, "r.example/team/x"), "two.example/t/x");
    assert_eq!(location(&conf, "r.example/team/app"), "three.example/exact");
    assert_eq!(location(&conf, "r.example/team/app/x"), "three.example/exact/x");
    assert_eq!(location(&conf, "r.example:5000/team/app"), "r.example:5000/team/app", "a port makes another host");
    assert_eq!(location(&conf, "xr.example/team"), "xr.example/team");
}

#[test]
fn a_wildcard_stands_for_hosts_below_the_domain_and_for_nothing_else() {
    let conf = conf(
        r#"
        [[registry]]
        prefix = "*.corp.example"
        location = "mirror.example/corp"
        [[registry]]
        prefix = "a.corp.example"
        location = "exact.example"
        [[registry]]
        prefix = "*.kept.example"
    "#,
    );
    assert_eq!(location(&conf, "b.corp.example/x"), "mirror.example/corp/x");
    assert_eq!(location(&conf, "c.b.corp.example/x"), "mirror.example/corp/x");
    assert_eq!(location(&conf, "a.corp.example/x"), "exact.example/x", "of equal length the host itself wins");
    assert_eq!(location(&conf, "corp.example/x"), "corp.example/x");
    assert_eq!(location(&conf, "b.corp.example.evil.example/x"), "b.corp.example.evil.example/x");
    assert_eq!(location(&conf, "h.example/b.corp.example/x"), "h.example/b.corp.example/x");
    assert_eq!(location(&conf, "b.corp.example:443/x"), "b.corp.example:443/x");
    assert_eq!(location(&conf, "x.kept.example/x"), "x.kept.example/x");
}

#[test]
fn single_names_of_docker_hub_are_matched_with_their_library() {
    let conf = conf("[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"hub.example/lib\"");
    assert_eq!(location(&conf, "docker.io/busybox"), "hub.example/lib/busybox");
    assert_eq!(location(&conf, "docker.io/team/busybox"), "docker.io/team/busybox");
}

#[test]
fn a_mirror_answers_for_a_tag_only_where_its_entry_says_so() {
    let conf = conf(
        r#"
        [[registry]]
        location = "r.example"
        [[registry.mirror]]
        location = "default.example"
        [[registry.mirror]]
        location = "all.example/m"
        pull-from-mirror = "all"
        [[registry.mirror]]
        location = "digest.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tag.example"
        pull-from-mirror = "tag-only"
    "#,
    );
    let (by_digest, location) = places(&conf, "r.example/a", Asked::ByDigest);
    assert_eq!(by_digest, ["default.example/a", "all.example/m/a", "digest.example/a"]);
    assert_eq!(location, "r.example/a");
    assert_eq!(places(&conf, "r.example/a", Asked::ByName).0, ["all.example/m/a", "tag.example/a"]);
}

#[test]
fn blocked_prefixes_give_their_code() {
    let conf = conf(
        "[[registry]]\nprefix = \"r.example/bad\"\nblocked = true\n[[registry]]\nprefix = \"*.evil.example\"\nblocked = true",
    );
    for name in ["r.example/bad", "r.example/bad/x", "x.evil.example/x"] {
        let error = conf.places(&name.parse().unwrap(), Asked::ByDigest).unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_BLOCKED, "{error}");
    }
    assert_eq!(location(&conf, "r.example/badly"), "r.example/badly");
}

#[test]
fn insecure_names_exact_hosts() {
    let conf = conf(
        "[[registry]]\nprefix = \"a.example\"\nlocation = \"plain.example:80/x\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"tls.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\ninsecure = true",
    );
    assert_eq!(conf.plain_http().collect::<Vec<_>>(), ["plain.example:80", "m.example"]);
}

#[test]
fn what_cannot_be_kept_exactly_is_refused() {
    for (text, because) in [
        ("[registries.search]\nregistries = []", "version 1"),
        ("x = 1", "unknown field"),
        ("[[registry]]\nlocation = \"r.example\"\nskip = true", "unknown field"),
        ("[[registry]]\n", "neither prefix nor location"),
        ("[[registry]]\nprefix = \"r.example\"", "no location"),
        ("[[registry]]\nprefix = \"*.x.example\"\ninsecure = true", "exact hosts"),
        ("[[registry]]\nprefix = \"*.x.example/app\"\n", "*.domain"),
        ("[[registry]]\nprefix = \"*x.example\"\n", "*.domain"),
        ("[[registry]]\nprefix = \"r.example/app:v1\"\nblocked = true", "tag"),
        ("[[registry]]\nlocation = \"https://r.example\"", "scheme"),
        ("[[registry]]\nlocation = \"short\"", "host"),
        ("[[registry]]\nlocation = \"r.example/\"", "host"),
        (
            "[[registry]]\nlocation = \"r.example\"\n[[registry]]\nprefix = \"r.example\"\nlocation = \"x.example\"",
            "two",
        ),
        (
            "[[registry]]\nlocation = \"r.example\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \
             \"m.example\"\npull-from-mirror = \"all\"",
            "both",
        ),
        (
            "[[registry]]\nlocation = \"r.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \
             \"never\"",
            "none of",
        ),
        ("short-name-mode = \"whatever\"", "none of"),
        ("credential-helpers = [\"../evil\"]", "credential-helpers"),
    ] {
        let error = RegistriesConf::parse(text).expect_err(text).to_string();
        assert!(error.contains(because), "{text}: {error}");
    }
}

#[test]
fn what_a_distribution_ships_is_read() {
    let conf = conf(
        r#"
        unqualified-search-registries = ["registry.fedoraproject.org", "docker.io"]
        short-name-mode = "enforcing"
        credential-helpers = ["containers-auth.json", "secretservice"]
        [aliases]
        "alpine" = "docker.io/library/alpine"
    "#,
    );
    assert_eq!(conf.credential_sources().len(), 2);
    assert_eq!(location(&conf, "docker.io/library/alpine"), "docker.io/library/alpine");
    assert_eq!(RegistriesConf::default().credential_sources(), [CredentialSource::AuthFile]);
}

proptest! {
    #[test]
    fn any_rule_that_is_read_leads_to_a_repository_or_to_an_error(
        prefix in "(\\*\\.)?[a-z.:/*0-9]{1,16}", location in "[a-z.:/0-9]{1,16}", name in "[a-z]{1,5}\\.[a-z]{1,4}(/[a-z]{1,4}){1,3}",
    ) {
        let text = format!("[[registry]]\nprefix = {prefix:?}\nlocation = {location:?}");
        if let Ok(conf) = RegistriesConf::parse(&text) {
            let repository: Repository = name.parse().unwrap();
            let _ = conf.places(&repository, Asked::ByDigest);
        }
    }
}
