//! `bind` and `overlayfs`: directories of the sandbox, seen at another place.

use std::os::fd::OwnedFd;

use super::options::MountOptions;
use super::plan::{Plan, Source};
use super::request::StorageRequest;
use crate::error::SandboxError;

/// The most lower directories.
const MAX_LOWER: usize = 64;

/// A directory beneath the sandbox's; `open` opens one.
pub(super) fn bind(
    request: &StorageRequest,
    open: impl Fn(&str) -> Result<OwnedFd, SandboxError>,
) -> Result<Plan, SandboxError> {
    let options = MountOptions::parse(&request.options, &["bind", "rbind"]).map_err(|why| request.refused(why))?;
    Ok(Plan { source: Source::Bind(open(&request.source)?), options, group: None, mode: None })
}

/// Directories beneath the sandbox's, given as `lowerdir=`, `upperdir=` and `workdir=`.
pub(super) fn overlay(
    request: &StorageRequest,
    open: impl Fn(&str) -> Result<OwnedFd, SandboxError>,
) -> Result<Plan, SandboxError> {
    let (mut lower, mut upper, mut work, mut others) = (None, None, None, Vec::new());
    for option in request.options.iter().flat_map(|option| option.split(',')) {
        let place = match option.split_once('=') {
            Some(("lowerdir", dirs)) => lower.replace(dirs),
            Some(("upperdir", dir)) => upper.replace(dir),
            Some(("workdir", dir)) => work.replace(dir),
            _ => {
                others.push(option);
                None
            }
        };
        if place.is_some() {
            return Err(request.refused("a directory is given twice"));
        }
    }
    let options = MountOptions::parse(&others, &[]).map_err(|why| request.refused(why))?;
    let lower: Vec<&str> = lower.unwrap_or_default().split(':').collect();
    if lower.len() > MAX_LOWER {
        return Err(request.refused("too many lower directories"));
    }
    let upper = match (upper, work) {
        (Some(upper), Some(work)) => Some((open(upper)?, open(work)?)),
        (None, None) => None,
        _ => return Err(request.refused("upperdir and workdir belong together")),
    };
    let lower = lower.into_iter().map(open).collect::<Result<_, _>>()?;
    Ok(Plan { source: Source::Overlay { lower, upper }, options, group: None, mode: None })
}
