//! Mount options: each is one that is known, and none brings devices or setuid programs.

use rustix::mount::MountAttrFlags;

/// The most options of one storage.
const MAX_OPTIONS: usize = 64;
/// The longest value.
const MAX_VALUE: usize = 64;

/// Options as the kernel takes them: attributes of the mount, and keys of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// `nosuid` and `nodev` always, and what was asked for.
    pub(crate) attributes: MountAttrFlags,
    /// Keys with or without a value, in order.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl MountOptions {
    /// Reads `options`, each one or several between commas. `known` lists the keys this file system may be given; one
    /// that ends in `=` takes a value of letters, digits and `.%_-`.
    ///
    /// # Errors
    /// Says which option may not be given.
    pub fn parse(options: &[impl AsRef<str>], known: &[&str]) -> Result<Self, String> {
        let mut read =
            Self { attributes: MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV, data: Vec::new() };
        let parts = options.iter().flat_map(|option| option.as_ref().split(','));
        for (count, option) in parts.enumerate() {
            if count >= MAX_OPTIONS {
                return Err(format!("more than {MAX_OPTIONS} options"));
            }
            if !read.attribute(option) && !read.key(option, known) {
                let shown: String = option.chars().take(64).collect();
                return Err(format!("the option `{}` may not be given", shown.escape_debug()));
            }
        }
        Ok(read)
    }

    /// What file systems have in common.
    fn attribute(&mut self, option: &str) -> bool {
        self.attributes |= match option {
            "ro" => MountAttrFlags::MOUNT_ATTR_RDONLY,
            "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => MountAttrFlags::MOUNT_ATTR_NOATIME,
            // What is so without saying it.
            "nosuid" | "nodev" | "rw" | "relatime" | "" => MountAttrFlags::empty(),
            _ => return false,
        };
        true
    }

    fn key(&mut self, option: &str, known: &[&str]) -> bool {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let listed = known.iter().any(|known| match value {
            None => *known == name,
            Some(_) => known.strip_suffix('=') == Some(name),
        });
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'%' | b'_' | b'-');
        let sound = value.is_none_or(|value| !value.is_empty() && value.len() <= MAX_VALUE && value.bytes().all(plain));
        let fresh = self.data.iter().all(|(known, _)| known != name);
        if !(listed && sound && fresh) {
            return false;
        }
        self.data.push((name.to_owned(), value.map(str::to_owned)));
        true
    }

    /// Whether nothing may be written.
    pub(crate) fn read_only(&self) -> bool {
        self.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// Takes a key of ours away that the kernel is not to see.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.data.iter().position(|(known, _)| known == name)?;
        self.data.remove(at).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_real_runtimes_send_are_read() {
        let options = ["noexec,nosuid", "nodev", "mode=1777", "size=67108864"];
        let read = MountOptions::parse(&options, &["mode=", "size="]).unwrap();
        assert!(read.attributes.contains(MountAttrFlags::MOUNT_ATTR_NOEXEC));
        assert_eq!(read.data, [("mode".into(), Some("1777".into())), ("size".into(), Some("67108864".into()))]);
    }

    #[test]
    fn devices_setuid_unknown_keys_and_repeats_are_refused() {
        for bad in
            ["suid", "dev", "mode", "size=", "size=1 2", "size=/x", "uid=0", "mode=1,mode=2", "exec", "bind", "Ro"]
        {
            assert!(MountOptions::parse(&[bad], &["mode=", "size="]).is_err(), "{bad}");
        }
        let read = MountOptions::parse(&["rw", "relatime"], &[]).unwrap();
        assert_eq!(read.attributes, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV);
        assert!(MountOptions::parse(&vec!["rw"; 65], &[]).is_err());
    }
}
