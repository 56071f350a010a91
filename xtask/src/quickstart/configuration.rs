//! The configuration files of the quickstart's services.

use std::path::Path;

/// docker-registry: files in a folder, any free port.
pub(crate) fn registry(storage: &Path) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: info}}\n\
         storage:\n  filesystem: {{rootdirectory: \"{}\"}}\n  delete: {{enabled: true}}\n\
         http: {{addr: \"127.0.0.1:0\"}}\n",
        storage.display()
    )
}

/// The remote attestor's side of the agreement.
pub(crate) struct Broker<'c> {
    /// Public key of the golden values' signer, PEM.
    pub(crate) signer: &'c str,
    /// Public attestation key of the TPM, PEM.
    pub(crate) attestation_key: &'c str,
    /// `host:port` of the registry.
    pub(crate) registry: &'c str,
}

/// key-broker: the remote attestor.
pub(crate) fn broker(folder: &Path, given: &Broker<'_>) -> String {
    format!(
        r#"environment = "development"
listen = "127.0.0.1:0"
store = "{folder}/broker.redb"
store_key = {{ file = "{folder}/store.key" }}
signing_key = "{folder}/attestor.pem"
admin_token = "{folder}/admin.token"
challenge_seconds = 120
token_seconds = 300
revocation_seconds = 5

[[signers]]
issuer = "release@example.com"
key = """{signer}"""
min_version = 1
revocations = "optional"

[registry]
plain_http = ["{registry}"]

[policy]
registers = ["tpm-listed"]

[[tpm.ak]]                 # the SIMULATED TPM's attestation key, enrolled openly
key = """{ak}"""
simulated = true
"#,
        folder = folder.display(),
        signer = given.signer,
        registry = given.registry,
        ak = given.attestation_key,
    )
}

/// The guest's side of the agreement.
pub(crate) struct Agent<'c> {
    /// Public key of the golden values' signer, PEM.
    pub(crate) signer: &'c str,
    /// Public key of the attestor's verdicts and receipts, PEM.
    pub(crate) attestor: &'c str,
    /// Where the attestor listens.
    pub(crate) attestor_url: &'c str,
    /// `host:port` of the registry.
    pub(crate) registry: &'c str,
    /// The OCI runtime.
    pub(crate) runtime: &'c Path,
}

/// guest-agent: measured whole, so the host cannot change it unnoticed.
pub(crate) fn agent(folder: &Path, given: &Agent<'_>) -> String {
    format!(
        r#"environment = "development"
state_dir = "{folder}/agent"
image_dir = "{folder}/images"

[listen]
unix = "{folder}/agent.sock"

[attester]
kind = "tpm"
device = "unix:{folder}/tpm.sock"        # SIMULATED
pcr = 14

[attestor]
kind = "tcl"
url = "{url}"
key = """{attestor}"""

[modes]
permitted = ["local", "remote"]
default = "remote"

[local]
boot_state = {{ unmeasured = true }}       # development only
receipts = "wait"
golden_from = "registry"

[[signers]]
issuer = "release@example.com"
key = """{signer}"""
min_version = 1
revocations = "optional"

[registry]
plain_http = ["{registry}"]

[images]
# Whoever signs golden values approves images here; no image signature is asked for beside theirs.
signature_policy_json = '{{"default": [{{"type": "insecureAcceptAnything"}}]}}'

[runtime]
path = "{runtime}"
"#,
        folder = folder.display(),
        url = given.attestor_url,
        attestor = given.attestor,
        signer = given.signer,
        registry = given.registry,
        runtime = given.runtime.display(),
    )
}
