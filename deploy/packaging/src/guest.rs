//! What goes into guests for Kata Containers: overlays over a root file system, and the guest extension image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::error::file;
use crate::{Epoch, PackagingError, Programs, Result, Tree, tool};

/// The first partition's offset, and what the second one's is a multiple of, in bytes.
const ALIGNMENT: u64 = 1024 * 1024;
/// Blocks of EROFS and of dm-verity, in bytes.
const BLOCK: u64 = 4096;
/// Room for the second partition table behind the last partition, in bytes.
const TAIL: u64 = ALIGNMENT;
const SECTOR: u64 = 512;
/// The measured configuration's place in a guest.
const CONFIGURATION: &str = "etc/trusted-container-launcher";

/// Writes `trusted-container-launcher-overlay.tar.zst`, to be unpacked over the root file system of a Kata guest with systemd
/// (osbuilder's, say) before it is measured: our agent runs in the place of its `kata-agent`. The configuration in it is a
/// template.
///
/// # Errors
/// [`PackagingError`].
pub fn overlay(workspace: &Path, programs: &Programs, out: &Path, epoch: Epoch) -> Result<PathBuf> {
    let mut tree = agent(workspace, programs)?;
    tree.copy(
        "usr/lib/systemd/system/kata-containers.target",
        0o644,
        &workspace.join("guest-agent/packaging/kata-containers.target"),
    )?;
    // Nothing of the image may start the other agent: both would listen on the same port.
    tree.link("etc/systemd/system/kata-agent.service", "/dev/null");
    pack(&tree, &out.join("trusted-container-launcher-overlay.tar.zst"), epoch)
}

/// Writes `trusted-container-launcher-beside.tar.zst`, an overlay for a guest that keeps its `kata-agent`: our agent serves
/// it images.
///
/// # Errors
/// [`PackagingError`].
pub fn beside(workspace: &Path, programs: &Programs, out: &Path, epoch: Epoch) -> Result<PathBuf> {
    let mut tree = agent(workspace, programs)?;
    let kata = workspace.join("deploy/kata/beside");
    let drop_in = "usr/lib/systemd/system/kata-agent.service.d/10-trusted-container-launcher.conf";
    tree.copy(drop_in, 0o644, &kata.join("kata-agent.service.d.conf"))?;
    tree.copy(&format!("{CONFIGURATION}/image_service.toml.template"), 0o644, &kata.join("image_service.toml"))?;
    pack(&tree, &out.join("trusted-container-launcher-beside.tar.zst"), epoch)
}

/// What every guest with systemd gets.
fn agent(workspace: &Path, programs: &Programs) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("usr/bin/guest-agent", 0o755, programs.stripped("guest-agent")?);
    let unit = workspace.join("guest-agent/packaging/guest-agent.service");
    tree.copy("usr/lib/systemd/system/guest-agent.service", 0o644, &unit)?;
    let closed = workspace.join("guest-agent/policy/src/closed.rego");
    tree.copy(&format!("{CONFIGURATION}/policy.rego"), 0o644, &closed)?;
    let template = workspace.join("deploy/kata/guest-agent.toml");
    tree.copy(&format!("{CONFIGURATION}/guest-agent.toml.template"), 0o644, &template)?;
    Ok(tree)
}

fn pack(tree: &Tree, path: &Path, epoch: Epoch) -> Result<PathBuf> {
    let packed = zstd::encode_all(tree.tar(epoch)?.as_slice(), 12).map_err(PackagingError::Archive)?;
    fs::write(path, packed).map_err(file(path))?;
    Ok(path.to_path_buf())
}

/// A guest extension image, and what a runtime says of it on the kernel's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// A disk with two partitions: EROFS, and its dm-verity hashes without a superblock.
    pub image: PathBuf,
    /// `verity_params` of Kata's configuration; the root hash in it is what is measured.
    pub verity: String,
}

/// Writes `trusted-container-launcher-extension.img` and `extension.toml`, the drop-in that names it, for stock Kata guests.
///
/// `configuration` is the folder of the measured configuration, with `guest-agent.toml` and all that it names; `pause` is
/// the pause bundle.
///
/// # Errors
/// [`PackagingError`].
pub fn extension(
    workspace: &Path,
    programs: &Programs,
    configuration: &Path,
    pause: &Path,
    out: &Path,
    epoch: Epoch,
) -> Result<Extension> {
    for needed in [configuration.join("guest-agent.toml"), pause.join("config.json")] {
        fs::metadata(&needed).map_err(file(&needed))?;
    }
    let kata = workspace.join("deploy/kata");
    let mut tree = Tree::default();
    tree.file("usr/local/bin/guest-agent", 0o755, programs.stripped("guest-agent")?);
    tree.copy("etc/kata-extensions/components.toml", 0o644, &kata.join("components.toml"))?;
    // Layers are decrypted by our agent, in the session with its key broker: no provider.
    tree.file("etc/ocicrypt_config.json", 0o644, "{\"key-providers\": {}}\n");
    tree.copy_folder(CONFIGURATION, configuration)?;
    tree.copy_folder("pause_bundle", pause)?;
    let image = out.join("trusted-container-launcher-extension.img");
    let verity = disk(&tree, &image, epoch)?;
    let template = kata.join("extension.toml");
    let text = fs::read_to_string(&template).map_err(file(&template))?;
    let place = "/opt/trusted-container-launcher/trusted-container-launcher-extension.img";
    let drop_in = out.join("extension.toml");
    fs::write(&drop_in, text.replace("@PATH@", place).replace("@VERITY@", &verity)).map_err(file(&drop_in))?;
    Ok(Extension { image, verity })
}

/// Writes the tree as such a disk and gives its `verity_params`.
fn disk(tree: &Tree, image: &Path, epoch: Epoch) -> Result<String> {
    let content = Sha256::digest(tree.tar(epoch)?);
    let named = |what: &str| Sha256::new().chain_update(what).chain_update(content).finalize();
    let staging = tempfile::tempdir().map_err(file(&std::env::temp_dir()))?;
    let (folder, data, hashes) =
        (staging.path().join("root"), staging.path().join("data"), staging.path().join("hashes"));
    tree.write(&folder)?;
    tool::run_with(
        Command::new(tool::found("mkfs.erofs"))
            .arg(format!("-T{}", epoch.0))
            .arg(format!("-U{}", uuid(&named("file system"))))
            .args(["--all-root", "--quiet"])
            .args([&data, &folder]),
    )?;
    let length = fs::metadata(&data).map_err(file(&data))?.len();
    let salt = hex::encode(named("salt"));
    fs::File::create(&hashes).map_err(file(&hashes))?;
    let said = tool::run_with(
        Command::new(tool::found("veritysetup"))
            .args(["format", "--no-superblock", "--data-block-size=4096", "--hash-block-size=4096"])
            .arg(format!("--salt={salt}"))
            .args([&data, &hashes]),
    )?;
    let root = said.lines().find_map(|line| line.strip_prefix("Root hash:")).map(str::trim);
    let untold = || PackagingError::Tool { program: "veritysetup".to_owned(), what: "tells no root hash".to_owned() };
    let root = root.ok_or_else(untold)?;
    let tree = fs::metadata(&hashes).map_err(file(&hashes))?.len();
    let second = (ALIGNMENT + length).next_multiple_of(ALIGNMENT);
    partition(image, (ALIGNMENT, length), (second, tree.next_multiple_of(BLOCK)), &named)?;
    copy(&data, image, ALIGNMENT)?;
    copy(&hashes, image, second)?;
    let blocks = length / BLOCK;
    Ok(format!("root_hash={root},salt={salt},data_blocks={blocks},data_block_size={BLOCK},hash_block_size={BLOCK}"))
}

/// Makes a disk with a GPT of two partitions, each an offset and a length in bytes.
fn partition(
    image: &Path,
    first: (u64, u64),
    second: (u64, u64),
    named: &impl Fn(&str) -> sha2::digest::Output<Sha256>,
) -> Result<()> {
    let length = (second.0 + second.1).next_multiple_of(ALIGNMENT) + TAIL;
    fs::File::create(image).and_then(|disk| disk.set_len(length)).map_err(file(image))?;
    let mut script = format!("label: gpt\nlabel-id: {}\nunit: sectors\n", uuid(&named("disk")));
    for (number, (offset, length), name) in [(1, first, "data"), (2, second, "hashes")] {
        let (start, size, uuid) = (offset / SECTOR, length.div_ceil(SECTOR), uuid(&named(name)));
        script.push_str(&format!("{number}: start={start}, size={size}, type=linux, uuid={uuid}, name={name}\n"));
    }
    let mut input = tempfile::tempfile().map_err(file(image))?;
    std::io::Write::write_all(&mut input, script.as_bytes()).map_err(file(image))?;
    std::io::Seek::rewind(&mut input).map_err(file(image))?;
    tool::run_with(Command::new(tool::found("sfdisk")).args(["--quiet", "--no-reread"]).arg(image).stdin(input))?;
    Ok(())
}

fn copy(from: &Path, image: &Path, offset: u64) -> Result<()> {
    use std::io::{Seek as _, SeekFrom};
    let mut disk = fs::OpenOptions::new().write(true).open(image).map_err(file(image))?;
    disk.seek(SeekFrom::Start(offset)).map_err(file(image))?;
    let mut bytes = fs::File::open(from).map_err(file(from))?;
    std::io::copy(&mut bytes, &mut disk).map_err(file(image))?;
    Ok(())
}

/// The first bytes of a digest as a UUID (RFC 9562, version 8).
fn uuid(digest: &[u8]) -> String {
    let mut bytes: Vec<u8> = digest.iter().copied().take(16).collect();
    if let Some(byte) = bytes.get_mut(6) {
        *byte = (*byte & 0x0f) | 0x80;
    }
    if let Some(byte) = bytes.get_mut(8) {
        *byte = (*byte & 0x3f) | 0x80;
    }
    let text = hex::encode(bytes);
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    for length in [8, 4, 4, 4, 12] {
        let (part, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        parts.push(part);
        rest = after;
    }
    parts.join("-")
}
