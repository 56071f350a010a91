//! The process a launch will run: the image's own, changed by what the caller asked for.

use protocols::image::{ImageProcess, MountRequest, ProcessRequest};

/// What a caller asks for beyond the image; empty means the image's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The full argument vector.
    pub args: Vec<String>,
    /// `NAME=value`, each replacing the image's entry of that name or added after them.
    pub env: Vec<String>,
    /// User.
    pub user: String,
    /// Working directory.
    pub cwd: String,
    /// Mounts beyond the fixed ones.
    pub mounts: Vec<MountRequest>,
}

/// Merges what was asked into the image's process. Whether the result may run is the appraisal's to say.
#[must_use]
pub fn merge(image: &ImageProcess, asked: Asked) -> ProcessRequest {
    let mut process = ProcessRequest::from(image);
    if !asked.args.is_empty() {
        process.args = asked.args;
    }
    for entry in asked.env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        let same = |old: &&mut String| old.split_once('=').map_or(old.as_str(), |(name, _)| name) == name;
        match process.env.iter_mut().find(same) {
            Some(old) => *old = entry,
            None => process.env.push(entry),
        }
    }
    if !asked.user.is_empty() {
        process.user = asked.user;
    }
    if !asked.cwd.is_empty() {
        process.cwd = asked.cwd;
    }
    process.mounts = asked.mounts;
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn what_is_not_asked_is_the_images_own() {
        let image = ImageProcess {
            args: strings(&["/app", "serve"]),
            env: strings(&["PATH=/bin", "MODE=fast"]),
            user: "app".to_owned(),
            cwd: "/srv".to_owned(),
        };
        assert_eq!(merge(&image, Asked::default()), ProcessRequest::from(&image));
        let asked = Asked {
            args: strings(&["/bin/sh"]),
            env: strings(&["MODE=slow", "NEW=1", "MODE=last", "PATHS=x"]),
            user: "0".to_owned(),
            ..Asked::default()
        };
        let process = merge(&image, asked);
        assert_eq!(process.args, strings(&["/bin/sh"]));
        assert_eq!(process.env, strings(&["PATH=/bin", "MODE=last", "NEW=1", "PATHS=x"]));
        assert_eq!((process.user.as_str(), process.cwd.as_str()), ("0", "/srv"));
    }
}
