//! The configuration file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use guest_vm::{Boot, Disk, Machine, Programs};
use serde::Deserialize;

/// What guests are made of, and where the shim finds the service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The service's unix socket: the shim's `hypervisor_socket`.
    pub listen: PathBuf,
    /// A folder for each guest's sockets, disks and console, by the sandbox's id. Short: sockets lie in it.
    pub run_dir: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    /// The kernel's command line, or a file that holds it.
    #[serde(default)]
    command_line: String,
    command_line_file: Option<PathBuf>,
    #[serde(default)]
    disks: Vec<DiskFile>,
    /// A new, empty disk for each guest: where the guest image's `[image_disk]` lies.
    image_disk: Option<ImageDiskFile>,
    #[serde(default = "memory_mib")]
    memory_mib: u32,
    #[serde(default = "processors")]
    processors: u32,
    qemu: Option<PathBuf>,
    swtpm: Option<PathBuf>,
    vsock: Option<PathBuf>,
    /// More arguments for QEMU.
    #[serde(default)]
    qemu_arguments: Vec<String>,
    /// The port of the guest's agent.
    #[serde(default = "port")]
    pub port: u32,
    #[serde(default = "start_seconds")]
    start_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskFile {
    file: PathBuf,
    serial: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageDiskFile {
    serial: String,
    bytes: u64,
}

const fn memory_mib() -> u32 {
    512
}

const fn processors() -> u32 {
    2
}

const fn port() -> u32 {
    1024
}

const fn start_seconds() -> u64 {
    120
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let config: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for path in [&config.listen, &config.run_dir, &config.kernel, &config.initrd] {
            if !path.is_absolute() {
                bail!("{}: must be an absolute path", path.display());
            }
        }
        Ok(config)
    }

    /// How long a guest may take until its agent listens.
    #[must_use]
    pub const fn start_time(&self) -> Duration {
        Duration::from_secs(self.start_seconds)
    }

    /// The machine of a guest whose folder is `folder`, which exists; `initdata` is its disk with initdata.
    ///
    /// # Errors
    /// A file cannot be read or made.
    pub(crate) fn machine(&self, folder: &Path, initdata: Option<PathBuf>) -> Result<Machine> {
        let mut command_line = self.command_line.clone();
        if let Some(file) = &self.command_line_file {
            let more = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            command_line = format!("{} {command_line}", more.trim()).trim().to_owned();
        }
        let (kernel, initrd) = (self.kernel.clone(), self.initrd.clone());
        let mut machine = Machine::new(Boot::Kernel { kernel, initrd, command_line });
        machine.memory_mib = self.memory_mib;
        machine.processors = self.processors;
        let usual = Programs::default();
        machine.programs = Programs {
            qemu: self.qemu.clone().unwrap_or(usual.qemu),
            swtpm: self.swtpm.clone().unwrap_or(usual.swtpm),
            vsock: self.vsock.clone().unwrap_or(usual.vsock),
        };
        machine.arguments = self.qemu_arguments.iter().map(Into::into).collect();
        let given = self.disks.iter().cloned();
        machine.disks = given.map(|disk| Disk { file: disk.file, serial: disk.serial, writable: false }).collect();
        machine.disks.extend(initdata.map(|file| Disk { file, serial: None, writable: false }));
        if let Some(disk) = &self.image_disk {
            let file = folder.join("images");
            let sparse = std::fs::File::create(&file).and_then(|file| file.set_len(disk.bytes));
            sparse.with_context(|| file.display().to_string())?;
            machine.disks.push(Disk { file, serial: Some(disk.serial.clone()), writable: true });
        }
        Ok(machine)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration whose guests cannot start.
    pub(crate) fn config(run_dir: &Path, more: &str) -> Result<Config> {
        let file = run_dir.join("config.toml");
        let text = format!(
            "listen = \"/run/hypervisor.sock\"\nrun_dir = \"{}\"\nkernel = \"/no/kernel\"\ninitrd = \"/no/initrd\"\n{more}",
            run_dir.display()
        );
        std::fs::write(&file, text)?;
        Config::read(&file)
    }

    #[test]
    fn disks_come_with_the_images_first_then_initdata_then_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let more = "image_disk = { serial = \"tcl-images\", bytes = 1048576 }\n[[disks]]\nfile = \"/root.erofs\"\n";
        let machine = config(dir.path(), more).unwrap().machine(dir.path(), Some("/initdata".into())).unwrap();
        let disks: Vec<_> = machine.disks.iter().map(|disk| (disk.file.clone(), disk.writable)).collect();
        let images = dir.path().join("images");
        assert_eq!(disks, [("/root.erofs".into(), false), ("/initdata".into(), false), (images.clone(), true)]);
        assert_eq!(std::fs::metadata(images).unwrap().len(), 1 << 20);
    }

    #[test]
    fn unknown_keys_and_relative_paths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(config(dir.path(), "").is_ok());
        assert!(config(dir.path(), "color = 1\n").is_err());
        assert!(config(Path::new("relative"), "").is_err());
    }
}
