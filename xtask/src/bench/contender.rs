//! Who pulls: `tclctl` in each layout, and the programs people use today.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::measure::{Process, Scratch, Usage, timed};
use crate::shell::{output, release_binaries};

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One of those who pull.
#[derive(Debug)]
pub(crate) struct Contender {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ours { tclctl: PathBuf, layout: String },
    Containerd,
    SkopeoUmoci,
    Podman,
}

impl Contender {
    /// `tclctl pull` of the release profile: what people use.
    pub(crate) fn ours(layout: &str) -> Result<Self> {
        let tclctl = release_binaries()?.join("tclctl");
        Ok(Self { name: format!("ours {layout}"), kind: Kind::Ours { tclctl, layout: layout.to_owned() } })
    }

    /// A peer, if it is installed.
    pub(crate) fn peer(name: &str) -> Result<Option<Self>> {
        let (kind, programs): (_, &[&str]) = match name {
            "containerd" => (Kind::Containerd, &["containerd", "ctr"]),
            "skopeo-umoci" => (Kind::SkopeoUmoci, &["skopeo", "umoci"]),
            "podman" => (Kind::Podman, &["podman"]),
            _ => bail!("{name} is no peer we know"),
        };
        let found = |program: &&str| {
            let mut version = Command::new(program);
            version.arg("--version");
            output(version).is_ok()
        };
        Ok(programs.iter().all(found).then(|| Self { name: name.to_owned(), kind }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Why it cannot pull an image.
    pub(crate) fn cannot(&self, image: &str) -> Option<&'static str> {
        let zstd = image.ends_with(":zstd");
        (zstd && matches!(self.kind, Kind::SkopeoUmoci)).then_some("umoci of Debian 12 does not read zstd")
    }

    /// Pulls and unpacks into a fresh tmpfs below `dir`.
    pub(crate) fn pull(&self, reference: &str, dir: &Path) -> Result<Usage> {
        let scratch = Scratch::mount(dir)?;
        let at = |name: &str| scratch.path().join(name).display().to_string();
        let mut usage = match &self.kind {
            Kind::Ours { tclctl, layout } => {
                let mut pull = Command::new(tclctl);
                pull.args(["pull", reference, "--store", &at("store"), "--layout", layout, "--json", "--plain-http"]);
                timed(&pull)?.0
            }
            Kind::Containerd => containerd(reference, scratch.path())?,
            Kind::SkopeoUmoci => {
                // One shell, so that both are one process tree.
                let mut both = Command::new("sh");
                both.args(["-c", "skopeo copy --insecure-policy --src-tls-verify=false \"docker://$1\" \"oci:$2:image\" && umoci unpack --image \"$2:image\" \"$3\"", "sh"]);
                both.args([reference, &at("oci"), &at("bundle")]).env("TMPDIR", scratch.path());
                timed(&both)?.0
            }
            Kind::Podman => {
                let mut pull = Command::new("podman");
                pull.args(["--root", &at("root"), "--runroot", &at("runroot"), "--storage-driver", "overlay"]);
                pull.args(["pull", "--tls-verify=false", reference]).env("TMPDIR", scratch.path());
                timed(&pull)?.0
            }
        };
        (usage.stored, usage.inodes) = scratch.used()?;
        Ok(usage)
    }
}

/// A private daemon with nothing in it pulls by `ctr`; counted from when it answers.
fn containerd(reference: &str, dir: &Path) -> Result<Usage> {
    let at = |name: &str| dir.join(name).display().to_string();
    let (config, socket) = (at("config.toml"), at("sock"));
    let text = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
         \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n\
         [grpc]\naddress = \"{socket}\"\n",
        at("root"),
        at("state"),
    );
    fs::write(&config, text).with_context(|| config.clone())?;
    let log = fs::File::create(at("log")).context("containerd's log")?;
    let mut daemon = Command::new("containerd");
    daemon.args(["--config", &config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let daemon = Daemon(daemon.spawn().context("containerd")?);
    let ctr = |arguments: &[&str]| {
        let mut ctr = Command::new("ctr");
        ctr.args(["--address", &socket]).args(arguments);
        ctr
    };
    let start = Instant::now();
    while output(ctr(&["version"])).is_err() {
        if start.elapsed() > PATIENCE {
            bail!("containerd does not answer: {}", fs::read_to_string(at("log")).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let process = Process::new(daemon.0.id());
    let (cpu, written) = (process.cpu()?, process.written()?);
    let pull = ctr(&["images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference]);
    let (mut usage, _) = timed(&pull)?;
    usage.cpu += process.cpu()? - cpu;
    usage.written += process.written()?.saturating_sub(written);
    usage.peak = usage.peak.max(process.peak()?);
    Ok(usage)
}

/// A daemon that ends with this value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
