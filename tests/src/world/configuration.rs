//! The configuration files of a world, and their edits.

use std::fs;

use protocols::keys::SigningKey;
use toml::{Table, Value};

use super::{ISSUER, Options, Tee, World};
use crate::command::{run, tclctl};
use crate::process::program;

impl World {
    fn signers(&self) -> Value {
        let mut signer = Table::new();
        signer.insert("issuer".into(), ISSUER.into());
        signer.insert("key".into(), self.release.verifying_key().to_pem().unwrap().into());
        signer.insert("min_version".into(), 1.into());
        signer.insert("revocations".into(), "optional".into());
        Value::Array(vec![Value::Table(signer)])
    }

    pub(super) fn configure_broker(&self, options: &Options) {
        fs::write(self.path("store.key"), "5a".repeat(32)).unwrap();
        let mut table: Table = format!(
            r#"environment = "development"
listen = "127.0.0.1:0"
store = "{0}/broker.redb"
store_key = {{ file = "{0}/store.key" }}
signing_key = "{0}/attestor.pem"
admin_token = "{0}/admin.token"
challenge_seconds = 120
token_seconds = 300
revocation_seconds = 0
[registry]
plain_http = ["{1}"]
[policy]
registers = ["tpm-listed", "software", "rtmr"]
"#,
            self.folder.display(),
            self.registry_address()
        )
        .parse()
        .unwrap();
        table.insert("signers".into(), self.signers());
        match &self.tpm {
            Some(tpm) => {
                let key = run(tclctl(&["ak", "show", "--device", &tpm.device()])).ok().stdout;
                let ak: Table = format!("ak = [{{ key = '''{key}''', simulated = true }}]").parse().unwrap();
                table.insert("tpm".into(), Value::Table(ak));
            }
            None => {
                let pki = self.path("pki").display().to_string();
                let _ = run(tclctl(&["simulated", "pki", &pki])).ok();
                if options.tee == Tee::SimulatedTdx {
                    let tdx = format!(
                        "collateral = '{pki}'\nroot = [{{ path = '{pki}/tdx-root.pem', simulated = true }}]\n\
                         [require]\nminimum_evaluation = 17"
                    );
                    table.insert("tdx".into(), Value::Table(tdx.parse().unwrap()));
                }
                let ark = self.path("pki/ark.pem");
                let root: Table =
                    format!("root = [{{ path = '{}', simulated = true }}]", ark.display()).parse().unwrap();
                table.insert("snp".into(), Value::Table(root));
            }
        }
        (options.broker)(&mut table);
        fs::write(self.path("broker.toml"), table.to_string()).unwrap();
    }

    /// A restarted attestor must come back at the same address.
    pub(super) fn fix_broker_port(&self, address: &str) {
        let path = self.path("broker.toml");
        let mut table: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        table.insert("listen".into(), address.into());
        fs::write(path, table.to_string()).unwrap();
    }

    pub(super) fn configure_agent(&self, options: &Options, attestor_url: &str, attestor: &SigningKey) {
        let attester = match &self.tpm {
            Some(_) if options.tpm_relay => {
                format!("kind = \"tpm\"\ndevice = \"unix:{}\"\npcr = 14", self.path("relay.sock").display())
            }
            Some(tpm) => format!("kind = \"tpm\"\ndevice = \"{}\"\npcr = 14", tpm.device()),
            None => {
                let kind = if options.tee == Tee::SimulatedTdx { "simulated-tdx" } else { "simulated-snp" };
                format!("kind = \"{kind}\"\npki = \"{}\"", self.path("pki").display())
            }
        };
        let mut table: Table = format!(
            r#"environment = "development"
state_dir = "{0}/state"
image_dir = "{0}/images"
[listen]
unix = "{0}/agent.sock"
[attester]
{attester}
[attestor]
kind = "tcl"
url = "{attestor_url}"
key = '''{key}'''
timeout_seconds = 3
[modes]
permitted = ["local", "remote"]
default = "remote"
[local]
boot_state = {{ unmeasured = true }}
receipts = "wait"
queue_max = 1024
golden_from = "registry"
[registry]
plain_http = ["{registry}"]
stall_seconds = 2
request_seconds = 3
[images]
# Whoever signs golden values approves images here; no image signature is asked for beside theirs.
signature_policy_json = '{{"default": [{{"type": "insecureAcceptAnything"}}]}}'

[runtime]
path = "{runtime}"
"#,
            self.folder.display(),
            key = attestor.verifying_key().to_pem().unwrap(),
            registry = self.registry_address(),
            runtime = program("runc").display(),
        )
        .parse()
        .unwrap();
        table.insert("signers".into(), self.signers());
        (options.agent)(&mut table);
        fs::write(self.path("agent.toml"), table.to_string()).unwrap();
    }

    /// Changes the agent's configuration; counts from its next start.
    ///
    /// # Panics
    /// When there is none.
    pub fn edit_agent(&self, edit: impl FnOnce(&mut Table)) {
        let path = self.path("agent.toml");
        let mut table: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        edit(&mut table);
        fs::write(path, table.to_string()).unwrap();
    }

    /// Changes the attestor's configuration; counts from its next start.
    ///
    /// # Panics
    /// When there is none.
    pub fn edit_broker(&self, edit: impl FnOnce(&mut Table)) {
        let path = self.path("broker.toml");
        let mut table: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        edit(&mut table);
        fs::write(path, table.to_string()).unwrap();
    }
}
