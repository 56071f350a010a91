//! `ephemeral` and `local`: what is guest memory alone.

use std::fs;
use std::path::Path;

use super::options::MountOptions;
use super::plan::{Plan, Source};
use super::request::StorageRequest;
use crate::error::SandboxError;

/// The most huge pages one storage may ask the kernel for.
const MAX_HUGE_PAGES: u64 = 1 << 20;

/// A tmpfs, or huge pages.
pub(super) fn ephemeral(request: &StorageRequest, sys: &Path) -> Result<Plan, SandboxError> {
    let known: &[&str] = match request.fstype.as_str() {
        "tmpfs" => &["size=", "mode=", "nr_inodes=", "uid=", "gid=", "fsgid="],
        "hugetlbfs" => &["size=", "pagesize=", "mode=", "uid=", "gid=", "fsgid="],
        _ => return Err(request.refused("an ephemeral storage is tmpfs or hugetlbfs")),
    };
    let mut options = MountOptions::parse(&request.options, known).map_err(|why| request.refused(why))?;
    let group = group(request, &mut options)?;
    if request.fstype == "hugetlbfs" {
        reserve(request, &options, sys)?;
    }
    Ok(Plan { source: Source::New { fstype: request.fstype.clone(), device: None }, options, group, mode: None })
}

/// A directory.
pub(super) fn local(request: &StorageRequest) -> Result<Plan, SandboxError> {
    let parsed = MountOptions::parse(&request.options, &["mode=", "fsgid="]);
    let mut options = parsed.map_err(|why| request.refused(why))?;
    let group = group(request, &mut options)?;
    let mode = options.take("mode").map(|text| {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o1777);
        mode.ok_or_else(|| request.refused("the mode is not octal, or has setuid or setgid"))
    });
    Ok(Plan { source: Source::Directory, options, group, mode: mode.transpose()? })
}

/// The group of the root alone, which runtimes give as an option of ours.
fn group(request: &StorageRequest, options: &mut MountOptions) -> Result<Option<u32>, SandboxError> {
    let parsed = options.take("fsgid").map(|text| text.parse().map_err(|_| request.refused("fsgid is no number")));
    parsed.transpose()
}

/// Asks the kernel for as many huge pages as the storage may use, and sees that it has them.
fn reserve(request: &StorageRequest, options: &MountOptions, sys: &Path) -> Result<(), SandboxError> {
    let value = |name: &str| {
        let found = options.data.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
        found.and_then(bytes).filter(|bytes| *bytes > 0)
    };
    let (size, page) = value("size")
        .zip(value("pagesize"))
        .ok_or_else(|| request.refused("huge pages need size= and pagesize=, in bytes or with K, M or G"))?;
    let pages = size.div_ceil(page);
    if pages > MAX_HUGE_PAGES {
        return Err(request.refused("too many huge pages"));
    }
    let dir = sys.join(format!("kernel/mm/hugepages/hugepages-{}kB", page / 1024));
    let failed = |error| SandboxError::system(format!("reserve huge pages in {}", dir.display()))(error);
    let read = |name: &str| -> Result<u64, SandboxError> {
        Ok(fs::read_to_string(dir.join(name)).map_err(failed)?.trim_end().parse().unwrap_or(0))
    };
    let missing = pages.saturating_sub(read("free_hugepages")?);
    if missing > 0 {
        let wanted = read("nr_hugepages")?.saturating_add(missing);
        fs::write(dir.join("nr_hugepages"), wanted.to_string()).map_err(failed)?;
        if read("nr_hugepages")? < wanted {
            return Err(failed(std::io::ErrorKind::OutOfMemory.into()));
        }
    }
    Ok(())
}

/// A number of bytes, with K, M or G as the kernel has them.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_kernel_reads_them() {
        assert_eq!(bytes("2M"), Some(2 << 20));
        assert_eq!(bytes("1g"), Some(1 << 30));
        assert_eq!(bytes("4096"), Some(4096));
        for bad in ["", "M", "-1", "1.5M", "99999999999999999999", "18446744073709551615K"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
