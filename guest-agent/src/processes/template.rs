//! From a request to the OCI process: the container's own measured process, changed only where it may be.

use std::collections::HashSet;
use std::path::PathBuf;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec, UserBuilder};
use protocols::digest::Sha384Digest;
use protocols::events::{Exec, hash_list, hash_str};
use protocols::jcs;
use serde_json::Value;

use super::{CapabilitySets, ExecRequest, ExecUser, Rights};
use crate::container_id::ContainerId;
use crate::error::ProcessFault;

/// The longest argument list and environment together, in bytes; the kernel takes no more.
const MAX_WORDS: usize = 2 * 1024 * 1024;

/// The final OCI process: its bytes, and what the log says of it.
#[derive(Debug, Clone)]
pub(crate) struct FinalProcess {
    /// Canonical JSON.
    pub(crate) bytes: Vec<u8>,
    process_h: Sha384Digest,
    args_h: Sha384Digest,
    env_h: Sha384Digest,
    cwd_h: Sha384Digest,
    uid: u32,
    gid: u32,
}

impl FinalProcess {
    /// By what processes of a container are told apart.
    pub(crate) const fn digest(&self) -> Sha384Digest {
        self.process_h
    }

    /// The record of its `n`th run in a container.
    pub(crate) fn event(&self, seq: u64, id: &ContainerId, n: u64) -> Exec {
        Exec {
            seq,
            cid_h: hash_str(id.as_str()),
            args_h: self.args_h,
            env_h: self.env_h,
            cwd_h: self.cwd_h,
            uid: self.uid,
            gid: self.gid,
            process_h: self.process_h,
            n,
        }
    }
}

/// The container's own process, as it was measured.
#[derive(Debug, Clone)]
pub(crate) struct Template(Process);

impl Template {
    /// Reads the process of a `config.json`.
    pub(crate) fn of(config: &[u8]) -> std::io::Result<Self> {
        let spec: Spec = serde_json::from_slice(config)?;
        let process = spec.process().as_ref().ok_or_else(|| std::io::Error::other("config.json has no process"))?;
        Ok(Self(process.clone()))
    }

    /// The working directory of an executed process.
    pub(crate) fn cwd(&self, request: &ExecRequest) -> PathBuf {
        if request.cwd.is_empty() { self.0.cwd().clone() } else { PathBuf::from(&request.cwd) }
    }

    /// The OCI process of a request. What the container's own process has besides user, capabilities
    /// and words stays: limits, security labels, no new privileges.
    pub(crate) fn process(&self, request: &ExecRequest) -> Result<FinalProcess, ProcessFault> {
        check_words(request)?;
        let mut process = self.0.clone();
        let user = self.user(request)?;
        process.set_capabilities(Some(self.capabilities(request, user.uid)?));
        process.set_user(
            UserBuilder::default()
                .uid(user.uid)
                .gid(user.gid)
                .additional_gids(user.additional.clone())
                .build()
                .map_err(|_| ProcessFault::Malformed("the user can be none"))?,
        );
        process.set_args(Some(request.args.clone()));
        let cwd = self.cwd(request);
        process.set_cwd(cwd.clone());
        process.set_terminal(Some(request.terminal));
        process.set_console_size(None);
        let own_env = || self.0.env().clone().unwrap_or_default();
        let mut env = if request.env.is_empty() { own_env() } else { request.env.clone() };
        if request.terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        process.set_env(Some(env.clone()));
        let own = self.0.no_new_privileges().unwrap_or(false) && request.rights == Rights::Container;
        process.set_no_new_privileges(Some(own || request.no_new_privileges));
        let bytes = canonical(&process).ok_or(ProcessFault::Malformed("it has no JSON form"))?;
        Ok(FinalProcess {
            process_h: Sha384Digest::of(&bytes),
            args_h: hash_list(&request.args),
            env_h: hash_list(&env),
            cwd_h: hash_str(&cwd.to_string_lossy()),
            uid: user.uid,
            gid: user.gid,
            bytes,
        })
    }

    fn user(&self, request: &ExecRequest) -> Result<ExecUser, ProcessFault> {
        let own = self.0.user();
        let own =
            ExecUser { uid: own.uid(), gid: own.gid(), additional: own.additional_gids().clone().unwrap_or_default() };
        let Some(asked) = &request.user else { return Ok(own) };
        if request.rights == Rights::Policy || own.uid == 0 {
            return Ok(asked.clone());
        }
        if asked.uid != own.uid {
            return Err(ProcessFault::Exceeds("the user"));
        }
        let member = |group: &u32| *group == own.gid || own.additional.contains(group);
        if !member(&asked.gid) || !asked.additional.iter().all(member) {
            return Err(ProcessFault::Exceeds("a group"));
        }
        Ok(asked.clone())
    }

    fn capabilities(&self, request: &ExecRequest, uid: u32) -> Result<LinuxCapabilities, ProcessFault> {
        let none = LinuxCapabilities::default;
        let own = self.0.capabilities().clone().unwrap_or_else(|| bare(none(), Capabilities::new()));
        let Some(asked) = &request.capabilities else {
            let same = uid == self.0.user().uid();
            return Ok(if same { own } else { bare(none(), own.bounding().clone().unwrap_or_default()) });
        };
        let set = |names: &[String], own: &Option<Capabilities>| match request.rights {
            Rights::Policy => all_known(names),
            Rights::Container => {
                let own = own.clone().unwrap_or_default();
                Ok(known(names).filter(|capability| own.contains(capability)).collect())
            }
        };
        let CapabilitySets { bounding, effective, permitted, inheritable, ambient } = asked;
        let mut sets = none();
        sets.set_bounding(Some(set(bounding, own.bounding())?));
        sets.set_effective(Some(set(effective, own.effective())?));
        sets.set_permitted(Some(set(permitted, own.permitted())?));
        sets.set_inheritable(Some(set(inheritable, own.inheritable())?));
        sets.set_ambient(Some(set(ambient, own.ambient())?));
        Ok(sets)
    }
}

/// Canonical JSON; the capability sets, which have no order of their own, in the order of their names.
fn canonical(process: &Process) -> Option<Vec<u8>> {
    let mut value = serde_json::to_value(process).ok()?;
    if let Some(sets) = value.get_mut("capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    jcs::canonical(&value).ok()
}

/// Empty sets but for the bounding one.
fn bare(mut sets: LinuxCapabilities, bounding: Capabilities) -> LinuxCapabilities {
    sets.set_bounding(Some(bounding));
    sets.set_effective(Some(HashSet::new()));
    sets.set_permitted(Some(HashSet::new()));
    sets.set_inheritable(Some(HashSet::new()));
    sets.set_ambient(Some(HashSet::new()));
    sets
}

fn known(names: &[String]) -> impl Iterator<Item = Capability> + '_ {
    names.iter().filter_map(|name| serde_json::from_value(name.as_str().into()).ok())
}

fn all_known(names: &[String]) -> Result<Capabilities, ProcessFault> {
    let parsed = names.iter().map(|name| serde_json::from_value(name.as_str().into()));
    parsed.collect::<Result<_, _>>().map_err(|_| ProcessFault::Malformed("a capability is not known"))
}

fn check_words(request: &ExecRequest) -> Result<(), ProcessFault> {
    if request.args.first().is_none_or(String::is_empty) {
        return Err(ProcessFault::Malformed("no program is named"));
    }
    let words = || request.args.iter().chain(&request.env);
    if words().any(|word| word.contains('\0')) || request.cwd.contains('\0') {
        return Err(ProcessFault::Malformed("a word holds a NUL byte"));
    }
    if words().map(|word| word.len().saturating_add(1)).sum::<usize>() > MAX_WORDS {
        return Err(ProcessFault::Malformed("arguments and environment are too long"));
    }
    let named = |entry: &String| entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    if !request.env.iter().all(named) {
        return Err(ProcessFault::Malformed("an environment entry is not NAME=value"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(uid: u32) -> Template {
        let held = if uid == 0 { json!(["CAP_KILL", "CAP_CHOWN"]) } else { json!([]) };
        let config = json!({ "ociVersion": "1.0.2", "process": {
            "args": ["/app"], "env": ["PATH=/bin", "SECRET=x"], "cwd": "/work", "terminal": false,
            "user": { "uid": uid, "gid": uid, "additionalGids": [5] }, "noNewPrivileges": true,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 7, "hard": 8 }],
            "capabilities": { "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": held, "permitted": held,
                "inheritable": [], "ambient": [] } } });
        Template::of(config.to_string().as_bytes()).unwrap()
    }

    fn request() -> ExecRequest {
        ExecRequest { args: vec!["ls".to_owned()], ..Default::default() }
    }

    fn made(uid: u32, request: &ExecRequest) -> Result<Value, ProcessFault> {
        Ok(serde_json::from_slice(&template(uid).process(request)?.bytes).unwrap())
    }

    fn user(uid: u32, gid: u32, additional: &[u32]) -> Option<ExecUser> {
        Some(ExecUser { uid, gid, additional: additional.to_vec() })
    }

    #[test]
    fn what_is_not_asked_for_is_the_containers_own() {
        let process = made(7, &request()).unwrap();
        assert_eq!(process["args"], json!(["ls"]));
        assert_eq!(process["env"], json!(["PATH=/bin", "SECRET=x"]));
        assert_eq!(process["cwd"], "/work");
        assert_eq!(process["user"], json!({ "uid": 7, "gid": 7, "additionalGids": [5] }));
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["rlimits"][0]["hard"], 8);
        assert_eq!(process["capabilities"]["effective"], json!([]));
        let other = ExecRequest {
            env: vec!["A=b".to_owned()],
            cwd: "/".to_owned(),
            terminal: true,
            user: user(7, 5, &[7]),
            ..request()
        };
        let process = made(7, &other).unwrap();
        assert_eq!((&process["env"], &process["cwd"]), (&json!(["A=b", "TERM=xterm"]), &json!("/")));
        assert_eq!((&process["terminal"], &process["user"]["gid"]), (&json!(true), &json!(5)));
    }

    #[test]
    fn one_process_has_one_digest_and_every_part_of_it_counts() {
        let digest = |uid, request: &ExecRequest| template(uid).process(request).unwrap().digest();
        for _ in 0..20 {
            assert_eq!(digest(0, &request()), digest(0, &request()), "whatever the order of the sets");
        }
        let others = [
            ExecRequest { args: vec!["ls".to_owned(), "-l".to_owned()], ..request() },
            ExecRequest { env: vec!["PATH=/bin".to_owned()], ..request() },
            ExecRequest { cwd: "/".to_owned(), ..request() },
            ExecRequest { user: user(0, 0, &[]), ..request() },
            ExecRequest { terminal: true, ..request() },
            ExecRequest { capabilities: Some(CapabilitySets::default()), ..request() },
        ];
        for other in others {
            assert_ne!(digest(0, &other), digest(0, &request()), "{other:?}");
        }
        let event = template(7).process(&request()).unwrap().event(3, &ContainerId::new("web").unwrap(), 4);
        assert_eq!((event.seq, event.n, event.uid, event.gid), (3, 4, 7, 7));
        assert_eq!((event.cid_h, event.cwd_h), (hash_str("web"), hash_str("/work")));
        assert_eq!((event.args_h, event.env_h), (hash_list(&["ls"]), hash_list(&["PATH=/bin", "SECRET=x"])));
    }

    #[test]
    fn another_user_than_the_containers_is_refused_unless_that_is_root_or_policy_allows() {
        for asked in [user(0, 7, &[]), user(8, 7, &[]), user(7, 0, &[]), user(7, 7, &[0])] {
            let asked = ExecRequest { user: asked, ..request() };
            assert!(matches!(made(7, &asked), Err(ProcessFault::Exceeds(_))), "{asked:?}");
            assert!(made(0, &asked).is_ok());
            assert!(made(7, &ExecRequest { rights: Rights::Policy, ..asked }).is_ok());
        }
    }

    #[test]
    fn capabilities_are_at_most_the_containers_own() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let sets = CapabilitySets {
            bounding: names(&["CAP_KILL", "CAP_SYS_ADMIN"]),
            effective: names(&["CAP_KILL", "CAP_SYS_ADMIN", "CAP_OF_TOMORROW"]),
            permitted: names(&["CAP_KILL"]),
            inheritable: names(&["CAP_KILL"]),
            ambient: names(&["CAP_KILL"]),
        };
        let asked = ExecRequest { capabilities: Some(sets), ..request() };
        let held = |process: &Value, set: &str| process["capabilities"][set].clone();
        let root = made(0, &asked).unwrap();
        assert_eq!(held(&root, "bounding"), json!(["CAP_KILL"]));
        assert_eq!(held(&root, "effective"), json!(["CAP_KILL"]));
        assert_eq!(held(&root, "ambient"), json!([]));
        let app = made(7, &asked).unwrap();
        assert_eq!((held(&app, "bounding"), held(&app, "effective")), (json!(["CAP_KILL"]), json!([])));
        // Root of the container who becomes somebody else takes nothing along.
        let other = made(0, &ExecRequest { user: user(9, 9, &[]), ..request() }).unwrap();
        assert_eq!(held(&other, "effective"), json!([]));
        assert_eq!(held(&other, "bounding").as_array().unwrap().len(), 2);
        let allowed = ExecRequest { rights: Rights::Policy, ..asked };
        assert_eq!(made(0, &allowed).unwrap_err(), ProcessFault::Malformed("a capability is not known"));
        let sets = CapabilitySets { effective: names(&["CAP_SYS_ADMIN"]), ..Default::default() };
        let allowed = ExecRequest { capabilities: Some(sets), ..allowed };
        let process = made(0, &allowed).unwrap();
        assert_eq!(held(&process, "effective"), json!(["CAP_SYS_ADMIN"]));
        assert_eq!(process["noNewPrivileges"], false, "as the policy allowed it");
    }

    #[test]
    fn what_can_be_no_process_is_refused() {
        let bad = [
            ExecRequest { args: vec![], ..request() },
            ExecRequest { args: vec![String::new()], ..request() },
            ExecRequest { args: vec!["a\0".to_owned()], ..request() },
            ExecRequest { env: vec!["A".to_owned()], ..request() },
            ExecRequest { env: vec!["=A".to_owned()], ..request() },
            ExecRequest { cwd: "/\0".to_owned(), ..request() },
            ExecRequest { args: vec!["a".repeat(MAX_WORDS)], ..request() },
        ];
        for bad in bad {
            assert!(matches!(made(0, &bad), Err(ProcessFault::Malformed(_))));
        }
    }
}
