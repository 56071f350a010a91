use proptest::prelude::*;

use super::*;

fn place(text: &str, repository: &str) -> Option<String> {
    let conf = RegistriesD::parse(text).unwrap();
    conf.place(&repository.parse().unwrap()).map(ToString::to_string)
}

const NESTED: &str = r#"{
    "default-docker": {"sigstore": "file:///default", "sigstore-staging": "file:///staging"},
    "docker": {
        "h.example:5000": {"lookaside": "https://host.example/sigs"},
        "h.example:5000/team": {"lookaside": "https://team.example"},
        "h.example:5000/team/silent": {"use-sigstore-attachments": true},
        "*.Example": {"lookaside": "file:///domain"},
        "docker.io": {"lookaside": "file:///hub"}
    }
}"#;

#[test]
fn the_most_specific_namespace_that_names_a_place_decides() {
    for (repository, expected) in [
        ("h.example:5000/team/app", "https://team.example/"),
        ("h.example:5000/team/silent", "https://team.example/"),
        ("H.example:5000/team", "https://team.example/"),
        ("h.example:5000/teams/app", "https://host.example/sigs"),
        ("h.example/team/app", "file:///domain"),
        ("docker.io/busybox", "file:///hub"),
        ("h.test/app", "file:///default"),
    ] {
        assert_eq!(place(NESTED, repository).as_deref(), Some(expected), "{repository}");
    }
    assert_eq!(place("{}", "h.example/app"), None);
    assert_eq!(RegistriesD::default().place(&"h.example/app".parse().unwrap()), None);
}

#[test]
fn a_signature_lies_where_other_tools_write_it() {
    let digest = Sha256Digest::of(b"");
    let end = format!("team/app@sha256={}/signature-3", digest.hex());
    for (base, expected) in [
        ("file:///var/sigs", format!("file:///var/sigs/{end}")),
        ("https://s.example/a/", format!("https://s.example/a/{end}")),
        ("https://s.example", format!("https://s.example/{end}")),
    ] {
        let place = Lookaside::new(base).unwrap();
        assert_eq!(place.signature(&"h.example/team/app".parse().unwrap(), &digest, 3).to_string(), expected);
    }
    let hub = Lookaside::new("file:///s").unwrap().signature(&"docker.io/busybox".parse().unwrap(), &digest, 1);
    assert!(hub.to_string().starts_with("file:///s/library/busybox@sha256="), "{hub}");
}

#[test]
fn what_is_unknown_repeated_or_meant_otherwise_is_refused() {
    let docker = |members: &str| format!(r#"{{"docker":{{{members}}}}}"#);
    for text in [
        String::new(),
        "[]".to_owned(),
        r#"{"docker":null}"#.to_owned(),
        r#"{"dockr":{}}"#.to_owned(),
        r#"{"docker":{},"docker":{}}"#.to_owned(),
        docker(r#""h.example":{"lookaside":"file:///a","lookaside":"file:///b"}"#),
        docker(r#""h.example":{"lookaside":"file:///a"},"h.example":{"lookaside":"file:///a"}"#),
        docker(r#""h.example":{"lookaside":"file:///a"},"H.example":{"lookaside":"file:///b"}"#),
        docker(r#""h.example":{"lookaside":"file:///a","sigstore":"file:///a"}"#),
        docker(r#""h.example":{"look-aside":"file:///a"}"#),
        docker(r#""h.example":{"use-sigstore-attachments":false}"#),
        docker(r#""h.example/app:v1":{"lookaside":"file:///a"}"#),
        docker(r#""*.example/app":{"lookaside":"file:///a"}"#),
        docker(r#""app":{"lookaside":"file:///a"}"#),
        docker(r#""h.example":{"lookaside":"/a"}"#),
        docker(r#""h.example":{"lookaside":"file://host/a"}"#),
        docker(r#""h.example":{"lookaside":"ftp://s.example"}"#),
        docker(r#""h.example":{"lookaside":"https://user:word@s.example"}"#),
        docker(r#""h.example":{"lookaside":"https://s.example?x"}"#),
        format!("{{}}{}", " ".repeat(MAX_REGISTRIES_D)),
    ] {
        assert!(RegistriesD::parse(&text).is_err(), "{}", text.get(..80).unwrap_or(&text));
    }
}

proptest! {
    #[test]
    fn no_text_does_harm(text in ".{0,200}", base in "[a-z:/.%?#@0-9-]{0,40}") {
        let _ = RegistriesD::parse(&text);
        let text = format!(r#"{{"default-docker":{{"lookaside":"{base}"}}}}"#);
        if let Ok(conf) = RegistriesD::parse(&text) {
            let repository: Repository = "h.example/team/app".parse().unwrap();
            let place = conf.place(&repository).unwrap();
            let signature = place.signature(&repository, &Sha256Digest::of(b""), 1).to_string();
            prop_assert!(signature.ends_with("/signature-1"), "{signature}");
        }
    }
}
