//! Packet filter rules, as the text that `iptables-save` writes and `iptables-restore` reads.

use std::path::PathBuf;

use crate::error::SandboxError;
use crate::program::run;

/// The longest rules that are taken.
const MAX_RULES: usize = 3 << 20;

/// Where the four programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iptables {
    dir: PathBuf,
}

impl Default for Iptables {
    fn default() -> Self {
        Self { dir: "/usr/sbin".into() }
    }
}

impl Iptables {
    /// The rules of one family.
    ///
    /// # Errors
    /// [`SandboxError::System`] when the guest has no such program, or it fails.
    pub fn get(&self, v6: bool) -> Result<Vec<u8>, SandboxError> {
        run(&self.dir.join(if v6 { "ip6tables-save" } else { "iptables-save" }), &[], b"")
    }

    /// Replaces the rules of the tables that `rules` names; gives what the program wrote.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for more than 3 MiB, [`SandboxError::System`].
    pub fn set(&self, v6: bool, rules: &[u8]) -> Result<Vec<u8>, SandboxError> {
        if rules.len() > MAX_RULES {
            return Err(SandboxError::request("iptables", "more than 3 MiB"));
        }
        run(&self.dir.join(if v6 { "ip6tables-restore" } else { "iptables-restore" }), &["--wait", "10"], rules)
    }
}

#[cfg(test)]
mod tests {
    use sys::namespace::{Namespace, unshare};

    use super::*;

    #[test]
    fn rules_come_back_as_they_were_set() {
        // Children are started in the namespace of the thread that starts them.
        let inside = std::thread::spawn(|| {
            unshare(&[Namespace::Net]).unwrap();
            let iptables = Iptables::default();
            for (v6, rule) in
                [(false, "-A INPUT -s 192.0.2.1/32 -j DROP"), (true, "-A INPUT -s 2001:db8::1/128 -j DROP")]
            {
                let rules = format!("*filter\n:INPUT ACCEPT [0:0]\n{rule}\nCOMMIT\n");
                iptables.set(v6, rules.as_bytes()).unwrap();
                let now = String::from_utf8(iptables.get(v6).unwrap()).unwrap();
                assert!(now.contains(rule), "{now}");
            }
            assert!(iptables.set(false, b"*filter\nnonsense\n").is_err());
            assert!(iptables.set(false, &vec![b'#'; MAX_RULES + 1]).is_err());
        });
        inside.join().unwrap();
    }
}
