use std::fs;

use super::*;

fn ran(directory: &Path) -> Result<(), Failure> {
    test(&PolicyTestArguments { directory: directory.to_owned() }, &Output::new(true))
}

/// A directory with these files.
fn of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn the_documented_examples_pass_each_and_all() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/policies"));
    ran(directory).unwrap();
    let kinds: Vec<_> = tables(directory).unwrap();
    assert_eq!(kinds.len(), 4);
    // Turned around, every single case fails: none of them passes for want of being asked.
    for path in kinds {
        let table = Table::parse(&path, &text(&path).unwrap()).unwrap();
        assert!(table.run("t").unwrap().iter().all(Ran::passed), "{}", path.display());
        let json = path.extension().unwrap() == "json";
        let turned = text(&path).unwrap();
        let turned = match json {
            true => turned.replace("\"affirming\"", "\"warning\"").replace("\"contraindicated\"", "\"none\""),
            false => turned
                .replace("expect = \"allow\"", "expect = \"D\"")
                .replace("expect = \"deny\"", "expect = \"allow\"")
                .replace("expect = \"D\"", "expect = \"deny\""),
        };
        let table = Table::parse(&path, &turned).unwrap();
        for case in table.run("t").unwrap() {
            assert!(!case.passed(), "{}", case.line());
            assert!(case.line().starts_with("FAILED"));
        }
    }
}

#[test]
fn a_case_that_fails_ends_with_its_code_and_status() {
    let case = "kind = \"agent\"\n[[case]]\nname = \"n\"\nrequest = \"ExecProcessRequest\"\ninput = {}\nexpect = ";
    ran(of(&[("t.toml", &format!("{case}\"deny\""))]).path()).unwrap();
    let failure = ran(of(&[("t.toml", &format!("{case}\"allow\""))]).path()).unwrap_err();
    assert_eq!(failure.status(), 77);
    assert!(failure.line().contains("policy.test"));
    // The reason is part of what is expected.
    let reason = format!("{case}\"deny\"\nreason = \"somebody else\"");
    assert_eq!(ran(of(&[("t.toml", &reason)]).path()).unwrap_err().status(), 77);
    // A policy that cannot be used fails its cases.
    let broken = format!("policy = \"p.rego\"\n{case}\"deny\"");
    let failure = ran(of(&[("t.toml", &broken), ("p.rego", "package agent_policy\nA {")]).path()).unwrap_err();
    assert_eq!(failure.status(), 77);
}

#[test]
fn what_is_no_table_is_a_usage_error() {
    for text in [
        "",
        "kind = \"other\"\ncase = []",
        "kind = \"agent\"\ncase = []",
        "kind = \"agent\"\n[[case]]\nname = \"n\"\ninput = {}\nexpect = \"deny\"",
        "kind = \"agent\"\n[[case]]\nname = \"n\"\ninput = {}\nexpect = \"affirming\"\nrequest = \"R\"",
        "kind = \"agent\"\n[[case]]\nname = \"n\"\ninput = {}\nexpect = \"deny\"\nrequest = \"R\"\nextra = 1",
        "kind = \"resource\"\n[[case]]\nname = \"n\"\ninput = {}\nexpect = \"deny\"\npath = \"a/b\"",
        "kind = \"resource\"\n[[case]]\nname = \"n\"\ninput = {}\nexpect = \"deny\"",
        "kind = \"appraisal\"\n[[case]]\nname = \"n\"\ninput = {}\nexpect = \"deny\"",
    ] {
        assert_eq!(ran(of(&[("t.toml", text)]).path()).unwrap_err().status(), 64, "{text}");
    }
    assert_eq!(ran(of(&[("t.json", "{")]).path()).unwrap_err().status(), 64);
    assert_eq!(ran(of(&[("policy.rego", "package policy")]).path()).unwrap_err().status(), 64);
    assert_eq!(ran(Path::new("/nowhere")).unwrap_err().status(), 74);
}
