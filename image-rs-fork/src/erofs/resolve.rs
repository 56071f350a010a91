//! From a path in the archive to a directory of the layer, as containerd's unpacker finds it: symbolic links of
//! this layer are followed and never lead out; what does not exist becomes an implied directory.

use super::error::{ErofsError, Problem};
use super::format::Kind;
use super::tree::{Extent, ROOT, Tree};
use crate::tar::TarPath;

/// Links followed in one path, as many as Linux follows.
const MOST_LINKS: u32 = 40;

/// Reads the target of the symbolic link with this nid.
pub(super) type ReadLink<'a> = &'a mut dyn FnMut(u32) -> Result<Vec<u8>, ErofsError>;

/// Where a path leads: an existing directory and the names below it that do not exist.
struct Found {
    dir: u32,
    missing: Vec<Vec<u8>>,
}

/// The directory at `path`, made where it does not exist.
pub(super) fn make_dir(tree: &mut Tree, path: TarPath<'_>, read_link: ReadLink<'_>) -> Result<u32, ErofsError> {
    if let Some(dir) = tree.dir_at(path) {
        return Ok(dir);
    }
    let found = walk(tree, path, read_link)?;
    found.missing.iter().try_fold(found.dir, |dir, name| tree.place_dir(dir, name).map(|(dir, _)| dir))
}

/// The directory at `path`, if it exists.
pub(super) fn find_dir(tree: &Tree, path: TarPath<'_>, read_link: ReadLink<'_>) -> Result<Option<u32>, ErofsError> {
    let found = walk(tree, path, read_link)?;
    Ok(found.missing.is_empty().then_some(found.dir))
}

fn walk(tree: &Tree, path: TarPath<'_>, read_link: ReadLink<'_>) -> Result<Found, ErofsError> {
    let whole = path.as_bytes();
    let mut found = Found { dir: ROOT, missing: Vec::new() };
    // What is left to walk, last component first.
    let mut left: Vec<Vec<u8>> = components(whole);
    let mut links = 0;
    while let Some(name) = left.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if found.missing.pop().is_none() {
                    found.dir = tree.parent(found.dir);
                }
                continue;
            }
            _ => {}
        }
        extent(tree, &found)?.join(name.len())?;
        let next = if found.missing.is_empty() { tree.find(found.dir, &name) } else { None };
        match next.and_then(|id| tree.entry(id)) {
            Some(entry) if entry.kind == Kind::Dir => found.dir = entry.node,
            Some(entry) if entry.kind == Kind::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(ErofsError::entry(whole, Problem::Loop));
                }
                let target = read_link(entry.node)?;
                // Nothing is missing here: a link was found.
                if target.first() == Some(&b'/') {
                    found.dir = ROOT;
                }
                left.extend(components(&target));
            }
            // A whiteout hides lower layers only; this layer may have a directory there.
            None => found.missing.push(name),
            Some(entry) if entry.kind == Kind::Whiteout => found.missing.push(name),
            Some(_) => return Err(ErofsError::entry(whole, Problem::Parent)),
        }
    }
    Ok(found)
}

fn extent(tree: &Tree, found: &Found) -> Result<Extent, ErofsError> {
    found.missing.iter().try_fold(tree.extent(found.dir), |extent, name| extent.join(name.len()))
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
}
