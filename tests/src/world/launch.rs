//! Images, launches, and what must hold after them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ISSUER, World};
use crate::command::{Seen, run, run_with, runc_list, tclctl};
use crate::image::{Image, MARKER, Recipe};

impl World {
    /// Pushes an image.
    #[must_use]
    pub fn push(&self, recipe: &Recipe, repository: &str, tag: &str) -> Image {
        recipe.push_as(&self.folder, &self.registry.address, repository, tag, &self.own_credentials())
    }

    /// Where `tclctl` finds the registry's password, where it wants one.
    fn own_credentials(&self) -> Vec<String> {
        let path = self.path("own-auth.json");
        if path.exists() { vec!["--auth-file".to_owned(), path.display().to_string()] } else { Vec::new() }
    }

    /// Signs version `version` of an image's golden value with the pinned key; the marker's mount is allowed.
    ///
    /// # Panics
    /// When `tclctl golden push` fails.
    pub fn sign(&self, image: &Image, version: u64) -> Seen {
        self.sign_with(image, version, &[])
    }

    /// As [`World::sign`] with more arguments.
    ///
    /// # Panics
    /// When `tclctl golden push` fails.
    pub fn sign_with(&self, image: &Image, version: u64, arguments: &[&str]) -> Seen {
        let policy = self.path("process.json");
        if !policy.exists() {
            fs::write(&policy, format!(r#"{{"mounts":["{MARKER}"]}}"#)).unwrap();
        }
        let reference = format!("{}/{}:{}", self.registry.address, image.repository, image.tag);
        let (key, version, policy) = (self.path("release.pem"), version.to_string(), policy.display().to_string());
        let key = key.display().to_string();
        let mut all = vec![
            "golden",
            "push",
            &reference,
            "--key",
            &key,
            "--issuer",
            ISSUER,
            "--version",
            &version,
            "--process",
            &policy,
            "--environment",
            "development",
            "--plain-http",
            &self.registry.address,
        ];
        if !arguments.iter().any(|argument| argument.starts_with("--expires")) {
            all.extend(["--days", "30"]);
        }
        all.extend(arguments);
        let credentials = self.own_credentials();
        all.extend(credentials.iter().map(String::as_str));
        run(tclctl(&all)).ok()
    }

    /// The usual image, pushed and signed.
    #[must_use]
    pub fn signed(&self, script: &str, repository: &str) -> Image {
        let image = self.push(&Recipe::new(script), repository, "1");
        let _ = self.sign(&image, 1);
        image
    }

    /// How agent and attestor know an image: by tag, through the proxy where there is one.
    #[must_use]
    pub fn reference(&self, image: &Image) -> String {
        format!("{}/{}:{}", self.registry_address(), image.repository, image.tag)
    }

    /// `tclctl` for this world's agent.
    #[must_use]
    pub fn tclctl<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = tclctl(arguments);
        command.env("TCL_AGENT", self.agent_address());
        command
    }

    /// The arguments of `tclctl run`, with the marker's mount.
    #[must_use]
    pub fn run_arguments(&self, image: &Image, arguments: &[&str]) -> Vec<String> {
        let mount = format!("type=bind,source={},destination={MARKER}", self.path("marker").display());
        let mut all: Vec<String> = ["run", "--mount", &mount].map(str::to_owned).to_vec();
        let (options, command): (Vec<&str>, Vec<&str>) = match arguments.iter().position(|a| *a == "--") {
            Some(place) => (arguments[..place].to_vec(), arguments[place..].to_vec()),
            None => (arguments.to_vec(), Vec::new()),
        };
        all.extend(options.into_iter().map(str::to_owned));
        all.push(self.reference(image));
        all.extend(command.into_iter().map(str::to_owned));
        all
    }

    /// `tclctl run` with the marker's mount and these arguments.
    #[must_use]
    pub fn run(&self, image: &Image, arguments: &[&str]) -> Seen {
        self.run_with_input(image, arguments, b"")
    }

    /// As [`World::run`], with standard input.
    #[must_use]
    pub fn run_with_input(&self, image: &Image, arguments: &[&str], stdin: &[u8]) -> Seen {
        run_with(self.tclctl(&self.run_arguments(image, arguments)), stdin)
    }

    /// Where the agent keeps runc's state.
    #[must_use]
    pub fn runc_root(&self) -> PathBuf {
        self.path("state/runtime")
    }

    /// Whether a workload has left its mark.
    #[must_use]
    pub fn marked(&self) -> bool {
        self.path("marker/ran").exists()
    }

    /// Forgets the mark of an earlier launch.
    pub fn unmark(&self) {
        let _ = fs::remove_file(self.path("marker/ran"));
    }

    /// Fails the test if a container process ever existed, or if anything of a launch is left over.
    ///
    /// # Panics
    /// When something ran or is left.
    #[track_caller]
    pub fn nothing_ran(&self) {
        assert!(!self.marked(), "the workload must not have run");
        self.nothing_left();
    }

    /// Fails the test if a container or a mount of one is left.
    ///
    /// # Panics
    /// When something is left.
    #[track_caller]
    pub fn nothing_left(&self) {
        assert!(self.runc_root().is_dir(), "the agent keeps the runtime's state where this looks for it");
        assert_eq!(runc_list(&self.runc_root()), Vec::<String>::new(), "containers the runtime knows");
        let own = self.folder.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let left: Vec<&str> = mounts
            .lines()
            .filter(|line| {
                let target = line.split(' ').nth(1).unwrap_or_default();
                target.starts_with(&own) && !self.mounts.iter().any(|mount| Path::new(target) == mount)
            })
            .collect();
        assert_eq!(left, Vec::<&str>::new(), "mounts left over");
    }

    /// Fails the test if the image store holds anything but whole layers.
    ///
    /// # Panics
    /// When something half-written is left.
    #[track_caller]
    pub fn nothing_half_stored(&self) {
        let mut open = vec![self.path("images")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let scratch = ["tmp", "partial", "incoming", "staging"].iter().any(|word| name.contains(word));
                if path.is_dir() && scratch {
                    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "left in {}", path.display());
                } else if path.is_dir() && folder == self.path("images") {
                    open.push(path);
                } else {
                    assert!(!scratch, "{} is left", path.display());
                }
            }
        }
    }

    /// Fills a tmpfs of the options to its last byte.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn fill(&self, name: &str) {
        let mut file = fs::File::create(self.path(name).join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    /// Makes room again.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn drain(&self, name: &str) {
        fs::remove_file(self.path(name).join("ballast")).unwrap();
    }

    /// Credentials in the form docker keeps them.
    #[must_use]
    pub fn auth_file(&self, user: &str, password: &str) -> String {
        let auth = protocols::encoding::b64(format!("{user}:{password}").as_bytes());
        format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.registry.address)
    }

    /// Launches, expects a refusal with `code` and exit status `status`, and that nothing ran.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn refuses(&self, image: &Image, arguments: &[&str], status: i32, code: &str) -> Seen {
        let seen = self.run(image, arguments);
        seen.refused(status, code);
        self.nothing_ran();
        seen
    }

    /// Launches, expects success, the mark, and nothing left over.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn accepts(&self, image: &Image, arguments: &[&str]) -> Seen {
        self.unmark();
        let seen = self.run(image, arguments);
        assert_eq!(seen.status, 0, "the launch should be accepted: {seen:#?}\n{}", self.agent_log());
        assert!(self.marked(), "an accepted workload leaves its mark: {seen:#?}");
        self.unmark();
        seen
    }

    /// The agent's log file.
    #[must_use]
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// `tclctl log verify` against the TPM, read directly.
    #[must_use]
    pub fn verify_log(&self) -> Seen {
        let device = self.tpm.as_ref().unwrap().device();
        run(self.tclctl(&["log", "verify", "--pcr-device", &device, "--pcr", "14"]))
    }
}
