//! The table of policies that are taken and refused.

use super::*;

const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAwxa6OSTaVjwhscMiTrePsbQnfpfEiur+lIGcvsOT0fQ=\n-----END PUBLIC KEY-----\n";

const GPG: &[u8] = include_bytes!("../../../tests/data/vectors/openpgp/key.gpg");

fn parse(json: &str) -> Result<SignaturePolicy, PolicyError> {
    SignaturePolicy::parse_with(json.as_bytes(), |path| match path.to_str() {
        Some("/key.pub") => Ok(KEY.into()),
        Some("/text") => Ok(b"text".to_vec()),
        Some("/key.gpg") => Ok(GPG.into()),
        Some("/twice.gpg") => Ok([GPG, GPG].concat()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    })
}

fn with(requirement: &str) -> String {
    format!(r#"{{"default":[{requirement}]}}"#)
}

#[test]
fn what_the_manual_has_and_we_support_is_taken() {
    let data = protocols::encoding::b64(KEY.as_bytes());
    for json in [
        with(r#"{"type":"insecureAcceptAnything"}"#),
        with(r#"{"type":"reject"},{"type":"insecureAcceptAnything"}"#),
        with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub"}"#),
        with(r#"{"type":"sigstoreSigned","keyPaths":["/key.pub","/key.pub"],"signedIdentity":{"type":"matchExact"}}"#),
        with(&format!(r#"{{"type":"sigstoreSigned","keyData":"{data}"}}"#)),
        with(&format!(r#"{{"keyDatas":["{data}"],"type":"sigstoreSigned"}}"#)),
        with(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/key.gpg"}"#),
        with(r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/key.gpg"],"signedIdentity":{"type":"matchExact"}}"#),
        with(&format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyData":"{}"}}"#, protocols::encoding::b64(GPG))),
        // Debian and Fedora ship such files.
        r#"{"default":[{"type":"reject"}],"transports":{"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}"#.to_owned(),
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"reject"}],"*.example":[{"type":"reject"}]}}}"#
            .to_owned(),
    ] {
        parse(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
    }
}

#[test]
fn what_is_unknown_repeated_empty_or_unsupported_is_refused() {
    let scopes = |scopes: &str| format!(r#"{{"default":[{{"type":"reject"}}],"transports":{scopes}}}"#);
    let reject = r#"[{"type":"reject"}]"#;
    let cases = [
        ("nothing", String::new()),
        ("no default", "{}".to_owned()),
        ("no requirement", r#"{"default":[]}"#.to_owned()),
        ("a null", r#"{"default":null}"#.to_owned()),
        ("an unknown member", r#"{"default":[{"type":"reject"}],"x":1}"#.to_owned()),
        ("a default twice", format!(r#"{{"default":{reject},"default":{reject}}}"#)),
        ("bytes after the end", with(r#"{"type":"reject"}"#) + "{}"),
        ("no type", with("{}")),
        ("an unknown type", with(r#"{"type":"signedByMagic"}"#)),
        ("a type in other letters", with(r#"{"type":"Reject"}"#)),
        ("two types", with(r#"{"type":"reject","type":"insecureAcceptAnything"}"#)),
        ("accept with more", with(r#"{"type":"insecureAcceptAnything","keyPath":"/key.pub"}"#)),
        ("reject with more", with(r#"{"type":"reject","unless":true}"#)),
        ("no key", with(r#"{"type":"sigstoreSigned"}"#)),
        ("a null key", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","keyData":null}"#)),
        ("two sources", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","keyPaths":["/key.pub"]}"#)),
        ("a source twice", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","keyPath":"/key.pub"}"#)),
        ("an empty list", with(r#"{"type":"sigstoreSigned","keyPaths":[]}"#)),
        ("a missing file", with(r#"{"type":"sigstoreSigned","keyPath":"/none"}"#)),
        ("a relative path", with(r#"{"type":"sigstoreSigned","keyPath":"key.pub"}"#)),
        ("no key in the file", with(r#"{"type":"sigstoreSigned","keyPath":"/text"}"#)),
        ("no base64", with(r#"{"type":"sigstoreSigned","keyData":"?"}"#)),
        ("fulcio", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","fulcio":{}}"#)),
        ("a null fulcio", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","fulcio":null}"#)),
        ("pki", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","pki":{}}"#)),
        ("rekor", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","rekorPublicKeyPath":"/key.pub"}"#)),
        ("rekors", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","rekorPublicKeyDatas":[]}"#)),
        ("a null identity", with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","signedIdentity":null}"#)),
        (
            "an unknown identity",
            with(r#"{"type":"sigstoreSigned","keyPath":"/key.pub","signedIdentity":{"type":"any"}}"#),
        ),
        ("no key type", with(r#"{"type":"signedBy","keyPath":"/key.gpg"}"#)),
        ("another key type", with(r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/key.gpg"}"#)),
        ("no OpenPGP key", with(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/key.pub"}"#)),
        ("an OpenPGP key twice", with(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/twice.gpg"}"#)),
        ("no OpenPGP key at all", with(r#"{"type":"signedBy","keyType":"GPGKeys"}"#)),
        (
            "two sources of OpenPGP",
            with(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/key.gpg","keyPaths":["/key.gpg"]}"#),
        ),
        ("a member of the other kind", with(r#"{"type":"signedBy","keyType":"GPGKeys","keyDatas":[]}"#)),
        (
            "an OpenPGP signature without a name",
            with(
                r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/key.gpg","signedIdentity":{"type":"matchDigest"}}"#,
            ),
        ),
        ("a base layer", with(r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#)),
        ("an unknown transport", scopes(&format!(r#"{{"dockr":{{"":{reject}}}}}"#))),
        ("a transport twice", scopes(&format!(r#"{{"docker":{{"":{reject}}},"docker":{{"":{reject}}}}}"#))),
        ("a scope twice", scopes(&format!(r#"{{"docker":{{"h.example":{reject},"h.example":{reject}}}}}"#))),
        ("a scope in two spellings", scopes(&format!(r#"{{"docker":{{"h.example":{reject},"H.example":{reject}}}}}"#))),
        ("a scope for nobody", scopes(&format!(r#"{{"docker":{{"busybox":{reject}}}}}"#))),
        ("an empty scope", scopes(r#"{"docker":{"h.example":[]}}"#)),
        ("a slip for another tool", scopes(r#"{"dir":{"":[{"type":"rejekt"}]}}"#)),
        ("too large", with(r#"{"type":"reject"}"#) + &" ".repeat(MAX_POLICY)),
    ];
    for (name, json) in cases {
        assert!(parse(&json).is_err(), "{name}: {json}");
    }
}

#[test]
fn the_most_specific_scope_decides_alone() {
    let keys = ["h.example:5000", "h.example:5000/a", "h.example:5000/a/b", "h.example:5000/a/b:v1", "*.example", ""];
    let image = Name::parse("h.example:5000/a/b:v1").unwrap();
    let mut expected =
        vec!["*.example", "h.example:5000", "h.example:5000/a", "h.example:5000/a/b", "h.example:5000/a/b:v1"];
    while let Some(deciding) = expected.pop() {
        let scopes: Vec<String> = keys
            .iter()
            .filter(|key| **key == deciding || key.is_empty() || expected.contains(key))
            .map(|key| {
                let kind = if *key == deciding { "reject" } else { "insecureAcceptAnything" };
                format!(r#""{key}":[{{"type":"{kind}"}}]"#)
            })
            .collect();
        let json = format!(
            r#"{{"default":[{{"type":"insecureAcceptAnything"}}],"transports":{{"docker":{{{}}}}}}}"#,
            scopes.join(",")
        );
        let policy = parse(&json).unwrap();
        assert!(matches!(policy.requirements(&image), [Requirement::Reject]), "{deciding}");
    }
    let by_default =
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"h.example":[{"type":"insecureAcceptAnything"}]}}}"#;
    assert!(
        matches!(parse(by_default).unwrap().requirements(&image), [Requirement::Reject]),
        "another port, another host"
    );
}
