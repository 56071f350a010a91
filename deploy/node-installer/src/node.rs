//! Files on the node. Whatever is written is whole or not there, and writing it again changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::settings::{Containerd, Settings};

const DROP_IN: &str = "50-trusted-container-launcher.toml";
const CONTAINERD: &str = "trusted-container-launcher.toml";
/// Its presence says that containerd has not read its drop-in, or its absence, yet.
const PENDING: &str = "restart-pending";
/// How much of a guest image's digest names its folder, in hexadecimal digits.
const NAME: usize = 16;

/// A guest image's files, opened where they are: they outlive a change of the root folder.
#[derive(Debug)]
pub(crate) struct Guest {
    files: BTreeMap<String, File>,
}

impl Guest {
    /// Opens every file of a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if !path.is_file() {
                bail!("{}: a guest image is files alone", path.display());
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, File::open(&path).with_context(|| path.display().to_string())?);
        }
        if files.is_empty() {
            bail!("{}: no guest image in it", folder.display());
        }
        Ok(Self { files })
    }

    /// SHA-256 over names and digests, in hexadecimal digits.
    fn digest(&mut self) -> Result<String> {
        let mut all = Sha256::new();
        for (name, file) in &mut self.files {
            file.rewind()?;
            all.update(format!("{name}\0{}\n", digest(file)?));
        }
        Ok(hex::encode(all.finalize()))
    }
}

fn digest(file: &mut File) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
    }
    Ok(hex::encode(hash.finalize()))
}

/// Installs everything. Nothing is written where something that must be there is missing.
pub(crate) fn install(settings: &Settings, mut guest: Guest) -> Result<()> {
    let Settings { folder, kata, containerd, .. } = settings;
    if !kata.shim.is_file() {
        bail!("kata.shim: {} is not on this node", kata.shim.display());
    }
    let base = fs::read(&kata.base).with_context(|| format!("kata.base: {}", kata.base.display()))?;
    imports(containerd)?;
    let images = folder.join("guest");
    let mut name = guest.digest()?;
    name.truncate(NAME);
    let image = images.join(name);
    write_image(&image, &mut guest)?;
    // New pods begin with the new image from here on.
    let configuration = folder.join("kata/configuration.toml");
    write(&configuration, &base)?;
    let drop_in = kata.drop_in.replace("@GUEST@", &image.display().to_string());
    write(&folder.join("kata/config.d").join(DROP_IN), drop_in.as_bytes())?;
    let runtime = containerd.drop_in.replace("@KATA@", &configuration.display().to_string());
    let place = containerd.folder.join(CONTAINERD);
    if fs::read(&place).ok().as_deref() != Some(runtime.as_bytes()) {
        write(&folder.join(PENDING), b"")?;
        write(&place, runtime.as_bytes())?;
    }
    restart_if_pending(settings)?;
    // Guests that run have the files of an older image open.
    for entry in fs::read_dir(&images)? {
        let older = entry?.path();
        if older != image {
            fs::remove_dir_all(&older).with_context(|| older.display().to_string())?;
        }
    }
    Ok(())
}

/// Takes everything away that [`install`] brings.
pub(crate) fn remove(settings: &Settings) -> Result<()> {
    let Settings { folder, containerd, .. } = settings;
    let drop_in = containerd.folder.join(CONTAINERD);
    if drop_in.exists() {
        write(&folder.join(PENDING), b"")?;
        fs::remove_file(&drop_in).with_context(|| drop_in.display().to_string())?;
    }
    restart_if_pending(settings)?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

/// containerd must read what is written into the folder, or the runtime would be missing without a word.
fn imports(containerd: &Containerd) -> Result<()> {
    let path = &containerd.configuration;
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let table: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let wanted = containerd.folder.join("*.toml").display().to_string();
    let imported = table.get("imports").and_then(toml::Value::as_array);
    if !imported.is_some_and(|paths| paths.iter().any(|path| path.as_str() == Some(&wanted))) {
        bail!("{}: does not import {wanted}; add it to its `imports`", path.display());
    }
    Ok(())
}

/// Writes an image's folder under another name first: it is there whole or not at all.
fn write_image(image: &Path, guest: &mut Guest) -> Result<()> {
    if image.exists() && Guest::open(image)?.digest()? == guest.digest()? {
        return Ok(());
    }
    let new = image.with_extension("new");
    for stale in [&new, &image.to_path_buf()] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| stale.display().to_string())?;
        }
    }
    fs::create_dir_all(&new).with_context(|| new.display().to_string())?;
    for (name, file) in &mut guest.files {
        file.rewind()?;
        let path = new.join(name);
        let mut copy = File::create(&path).with_context(|| path.display().to_string())?;
        io::copy(file, &mut copy).with_context(|| path.display().to_string())?;
        copy.sync_all()?;
    }
    fs::rename(&new, image).with_context(|| image.display().to_string())
}

/// Writes a file whole, where it is not what it should be already.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let context = || path.display().to_string();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // containerd and Kata read *.toml alone.
    name.push(".new");
    let new: PathBuf = path.with_file_name(name);
    let mut file = File::create(&new).with_context(context)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(context)?;
    fs::rename(&new, path).with_context(context)
}

/// Restarts containerd where a change of its drop-in began that it was not restarted after, here or by an installer before.
fn restart_if_pending(settings: &Settings) -> Result<()> {
    let pending = settings.folder.join(PENDING);
    if pending.exists() {
        restart(&settings.containerd)?;
        fs::remove_file(&pending).with_context(|| pending.display().to_string())?;
    }
    Ok(())
}

fn restart(containerd: &Containerd) -> Result<()> {
    let Some((program, arguments)) = containerd.restart.split_first() else { return Ok(()) };
    // systemctl does nothing in what looks like a chroot, unless it is told.
    let status = Command::new(program).args(arguments).env("SYSTEMD_IGNORE_CHROOT", "1").status();
    let status = status.with_context(|| format!("{program} of the node"))?;
    if !status.success() {
        bail!("{}: {status}", containerd.restart.join(" "));
    }
    Ok(())
}
