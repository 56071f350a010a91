//! JWE against an independent library, Debian's python3-jwcrypto, which must be installed.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::Write as _;
use std::process::{Command, Stdio};

use protocols::jwe::{self, SecretKey};
use protocols::kbs::Response;
use serde_json::json;

/// Decrypts `jwe` with the key and encrypts "from jwcrypto" to it.
const SCRIPT: &str = r#"
import json, sys
from jwcrypto import jwe, jwk
task = json.load(sys.stdin)
key = jwk.JWK.from_pem(task["pem"].encode())
ours = jwe.JWE()
ours.deserialize(json.dumps(task["jwe"]), key)
theirs = jwe.JWE(b"from jwcrypto", protected=json.dumps({"alg": task["alg"], "enc": "A256GCM"}), recipient=key)
parts = ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
compact = dict(zip(parts, theirs.serialize(compact=True).split(".")))
print(json.dumps({"plain": ours.payload.decode(), "jwe": compact}))
"#;

const P256: &str = include_str!("data/jwe/p256.pem");
const P521: &str = include_str!("data/jwe/p521-1.pem");
const RSA: &str = include_str!("data/jwe/rsa-2.pem");

#[test]
fn an_independent_library_reads_ours_and_we_read_its() {
    for (pem, alg) in [(P256, jwe::ALG), (P521, jwe::ALG), (RSA, jwe::RSA_ALG)] {
        let key = SecretKey::from_pem(pem).unwrap();
        let ours = jwe::encrypt(&key.public_key().jwk(), b"from us").unwrap();
        let mut python = Command::new("/usr/bin/python3")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 must be installed");
        let task = json!({ "pem": pem, "alg": alg, "jwe": ours });
        python.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "python3-jwcrypto must be installed, and read what we wrote");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer.get("plain").unwrap(), "from us");
        let theirs: Response = serde_json::from_value(answer.get("jwe").unwrap().clone()).unwrap();
        assert_eq!(jwe::decrypt(&key, &theirs).unwrap().as_slice(), b"from jwcrypto");
    }
}
