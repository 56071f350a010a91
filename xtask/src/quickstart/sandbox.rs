//! The quickstart's temporary folder, its services, and a guard that removes both whatever happens.

use std::fs;
use std::io::{PipeWriter, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Waits for the end of its input, which comes when this process is gone in whatever way, then ends the
/// services in the reverse order of their start and removes what they left.
const GUARD: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
cd /
# A process that has ended but was not waited for is gone as well.
alive() { grep -q '^State:.[^ZX]' "/proc/$1/status" 2>/dev/null; }
pids=$(sort -rn "$1/services" 2>/dev/null | cut -d' ' -f2)
for pid in $pids; do
  kill -TERM "$pid" 2>/dev/null || continue
  for _ in $(seq 100); do alive "$pid" || break; sleep 0.05; done
  kill -KILL "$pid" 2>/dev/null
done
for root in $(find "$1" -type d -path "*/agent/runtime" 2>/dev/null); do
  for id in $(runc --root "$root" list -q 2>/dev/null); do runc --root "$root" delete --force "$id" 2>/dev/null; done
done
grep -F " $1/" /proc/self/mounts | cut -d' ' -f2 | sort -r | while read -r mount; do umount -l "$mount" 2>/dev/null; done
rm -rf --one-file-system "$1"
"#;

/// A temporary folder with services that live no longer than this value or this process.
pub(crate) struct Sandbox {
    folder: PathBuf,
    guard: Child,
    lifeline: Option<PipeWriter>,
    started: usize,
}

impl Sandbox {
    /// Makes the folder (0700) and starts the guard in a process group of its own, out of Ctrl-C's reach.
    pub(crate) fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tcl-quickstart.{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder).with_context(|| folder.display().to_string())?;
        let (reader, lifeline) = std::io::pipe()?;
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "guard"])
            .arg(&folder)
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start /bin/sh")?;
        Ok(Self { folder, guard, lifeline: Some(lifeline), started: 0 })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file in the folder and gives its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Starts a service with both outputs in `NAME.log` and tells the guard about it.
    pub(crate) fn start(&mut self, name: &str, mut command: Command) -> Result<Service> {
        println!("$ {} &", shell::shown(&command));
        let log = self.path(&format!("{name}.log"));
        let output = fs::File::create(&log)?;
        let child = command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.started += 1;
        let mut services = fs::OpenOptions::new().create(true).append(true).open(self.path("services"))?;
        writeln!(services, "{} {}", self.started, child.id())?;
        Ok(Service { name: name.to_owned(), child, log })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.guard.wait();
    }
}

/// A running service; ended by the sandbox's guard.
pub(crate) struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Waits until `ready` gives something; fails with the service's own words when it ends or takes over 20 s.
    pub(crate) fn wait_for<T>(&mut self, ready: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(found) = ready(&log) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}):\n{log}", self.name);
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within 20 s:\n{log}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it answers at `socket`.
    pub(crate) fn wait_for_socket(&mut self, socket: &Path) -> Result<()> {
        self.wait_for(|_| UnixStream::connect(socket).ok().map(drop))
    }
}
