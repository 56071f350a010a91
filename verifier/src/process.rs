//! The process policy of a golden value: which arguments, environment, user, directory and mounts.
//!
//! Without a policy the process must be the image's own. With one:
//!
//! - arguments: one rule must match; no rules means the image's own;
//! - environment: the image's own list, or each name once, none of the image's names left out, and each entry
//!   the image's own or allowed (`NAME=value` exactly, `NAME=*` any value);
//! - user: one of those listed; none listed means the image's own;
//! - working directory: the image's own or one of those listed;
//! - mounts: each destination listed, and asked for once.
//!
//! A NUL anywhere is refused: what follows it would be judged here and dropped by the kernel.

use std::collections::BTreeSet;

use protocols::golden::{ArgsRule, ProcessPolicy};
use protocols::image::{ImageProcess, ProcessRequest};

/// The first thing a process may not do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) expected: String,
    pub(crate) actual: String,
}

/// Checks `request` against the image's own process and the signed policy.
pub(crate) fn check(
    image: &ImageProcess,
    policy: Option<&ProcessPolicy>,
    request: &ProcessRequest,
) -> Result<(), Mismatch> {
    let own_only = ProcessPolicy::default();
    no_nul(request)?;
    let rules = policy.unwrap_or(&own_only);
    args(image, &rules.args, &request.args)?;
    match policy {
        Some(policy) => env(image, &policy.env, &request.env)?,
        None if request.env == image.env => {}
        None => return mismatch("the image's own environment", "another one"),
    }
    if rules.user.is_empty() {
        if request.user != image.user {
            return mismatch(format!("user `{}`, the image's own", image.user), format!("user `{}`", request.user));
        }
    } else if !rules.user.contains(&request.user) {
        return mismatch(format!("user one of {:?}", rules.user), format!("user `{}`", request.user));
    }
    if request.cwd != image.cwd && !rules.cwd.contains(&request.cwd) {
        let expected = format!("working directory `{}`, the image's own, or one of {:?}", image.cwd, rules.cwd);
        return mismatch(expected, format!("working directory `{}`", request.cwd));
    }
    mounts(&rules.mounts, request)
}

fn mismatch(expected: impl Into<String>, actual: impl Into<String>) -> Result<(), Mismatch> {
    Err(Mismatch { expected: expected.into(), actual: actual.into() })
}

fn no_nul(request: &ProcessRequest) -> Result<(), Mismatch> {
    let mounts = request.mounts.iter().flat_map(|m| [&m.destination, &m.kind, &m.source].into_iter().chain(&m.options));
    let mut all = request.args.iter().chain(&request.env).chain([&request.user, &request.cwd]).chain(mounts);
    if all.any(|text| text.contains('\0')) {
        return mismatch("text without NUL bytes", "a NUL byte");
    }
    Ok(())
}

fn args(image: &ImageProcess, rules: &[ArgsRule], args: &[String]) -> Result<(), Mismatch> {
    if rules.is_empty() {
        if args == image.args {
            return Ok(());
        }
        return mismatch(format!("arguments {:?}, the image's own", image.args), format!("{args:?}"));
    }
    let allowed = rules.iter().any(|rule| match rule {
        ArgsRule::Exact(list) => args == list.as_slice(),
        ArgsRule::Prefix(list) => args.starts_with(list),
    });
    if allowed { Ok(()) } else { mismatch(format!("arguments of one of {rules:?}"), format!("{args:?}")) }
}

/// Values may be secrets, so only names are told.
fn env(image: &ImageProcess, rules: &[String], env: &[String]) -> Result<(), Mismatch> {
    if env == image.env {
        return Ok(());
    }
    let mut names = BTreeSet::new();
    for entry in env {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return mismatch("environment entries NAME=value", "an entry without a name");
        };
        if !names.insert(name) {
            return mismatch("each environment name once", format!("{name} twice"));
        }
        let allowed = |rule: &String| rule == entry || rule.strip_suffix("=*") == Some(name);
        if !image.env.contains(entry) && !rules.iter().any(allowed) {
            return mismatch(format!("the image's own environment and {rules:?}"), format!("another value of {name}"));
        }
    }
    let left_out = image.env.iter().filter_map(|entry| entry.split_once('=')).find(|(name, _)| !names.contains(name));
    match left_out {
        Some((name, _)) => mismatch("every name of the image's own environment", format!("{name} left out")),
        None => Ok(()),
    }
}

fn mounts(rules: &[String], request: &ProcessRequest) -> Result<(), Mismatch> {
    let mut seen = BTreeSet::new();
    for mount in &request.mounts {
        if !rules.contains(&mount.destination) {
            return mismatch(format!("mounts at {rules:?} only"), format!("a mount at `{}`", mount.destination));
        }
        if !seen.insert(&mount.destination) {
            return mismatch("each mount destination once", format!("`{}` twice", mount.destination));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
