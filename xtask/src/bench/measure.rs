//! What a command cost: CPU time of its whole process tree, wall time, memory, bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::shell::{output, shown};

/// The kernel's clock ticks in a second, as `/proc` counts them (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// What one pull cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of user and system time, with all children.
    pub(crate) cpu: f64,
    /// Seconds.
    pub(crate) wall: f64,
    /// Bytes resident in the largest process, at most.
    pub(crate) peak: u64,
    /// Bytes handed to write calls, to pipes too.
    pub(crate) written: u64,
    /// Bytes the file system has taken at the end.
    pub(crate) stored: u64,
    /// Files, directories and links the file system has at the end.
    pub(crate) inodes: u64,
}

/// One pull of one image.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) image: String,
    pub(crate) contender: String,
    pub(crate) usage: Usage,
}

/// A fresh tmpfs; gone when dropped.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn mount(dir: &Path) -> Result<Self> {
        let path = dir.join("fs");
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=90%,nr_inodes=8000000,mode=755", "bench"]).arg(&path);
        output(mount)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes and inodes in use.
    pub(crate) fn used(&self) -> Result<(u64, u64)> {
        let mut df = Command::new("df");
        df.args(["--block-size=1", "--output=used,iused"]).arg(&self.path);
        let text = output(df)?;
        let mut numbers = text.lines().nth(1).unwrap_or_default().split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            // The root directory was there before.
            (Some(Ok(bytes)), Some(Ok(inodes))) => Ok((bytes, inodes.saturating_sub(1))),
            _ => bail!("df: {text}"),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Recursive and lazy: peers leave mounts of their own.
        let done = Command::new("umount").args(["-R", "-l"]).arg(&self.path).stderr(Stdio::null()).status();
        if done.is_ok_and(|status| status.success()) {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Runs a command to its end under GNU time. `stored` and `inodes` stay zero; the answer is its standard output.
pub(crate) fn timed(command: &Command) -> Result<(Usage, String)> {
    let report = std::env::temp_dir().join(format!("tcl-bench-time-{}", std::process::id()));
    let mut timed = Command::new("time");
    timed.args(["-q", "-f", "%U %S %M", "-o"]).arg(&report).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            timed.env(name, value);
        }
    }
    let before = counter(&own("io"), "wchar:")?;
    let start = Instant::now();
    let done = timed.stdin(Stdio::null()).output().context("cannot run time (Debian package time)")?;
    let wall = start.elapsed().as_secs_f64();
    let written = counter(&own("io"), "wchar:")?.saturating_sub(before);
    if !done.status.success() {
        bail!("`{}` failed ({}): {}", shown(command), done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    let text = fs::read_to_string(&report).with_context(|| report.display().to_string())?;
    fs::remove_file(&report).with_context(|| report.display().to_string())?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[user, system, kilobytes] = numbers.as_slice() else { bail!("time: {text}") };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count of kilobytes
    let peak = kilobytes as u64 * 1024;
    let usage = Usage { cpu: user + system, wall, peak, written, ..Usage::default() };
    Ok((usage, String::from_utf8_lossy(&done.stdout).into_owned()))
}

/// What a running process and its ended children have used so far.
pub(crate) struct Process(u32);

impl Process {
    pub(crate) const fn new(id: u32) -> Self {
        Self(id)
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    /// CPU seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let path = self.file("stat");
        let stat = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // The program's name is in parentheses and may hold anything; utime, stime, cutime and cstime follow.
        let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
        let ticks = fields.split(' ').skip(11).take(4).map(str::parse::<f64>);
        Ok(ticks.collect::<Result<Vec<_>, _>>().context("/proc/PID/stat")?.iter().sum::<f64>() / TICKS)
    }

    /// Bytes handed to write calls.
    pub(crate) fn written(&self) -> Result<u64> {
        counter(&self.file("io"), "wchar:")
    }

    /// Bytes resident, at most.
    pub(crate) fn peak(&self) -> Result<u64> {
        Ok(counter(&self.file("status"), "VmHWM:")?.saturating_mul(1024))
    }
}

fn own(name: &str) -> PathBuf {
    Path::new("/proc/self").join(name)
}

/// The number after `name` in a file of `/proc`.
fn counter(path: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.with_context(|| format!("{}: no {name}", path.display()))
}
