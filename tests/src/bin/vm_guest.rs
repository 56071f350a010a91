//! What tests run inside a guest: mounts layers through the kernel's verity, lists trees, looks for leftovers.
//!
//! ```text
//! vm_guest verity IMAGE DATA_BLOCKS ROOT_HASH TARGET   loop, dm-verity, EROFS at TARGET
//! vm_guest plain IMAGE TARGET                          loop, EROFS at TARGET
//! vm_guest image LAYOUT STORE FOLDER                   pulls from an OCI layout, mounts at FOLDER/rootfs
//! vm_guest altered LAYOUT STORE FOLDER OFFSET          the same, with one byte inverted between the two; says the code
//! vm_guest remove FOLDER                               ends that mount
//! vm_guest list FOLDER                                 one line for each name below
//! vm_guest flip FILE OFFSET                            inverts one byte
//! vm_guest disk SERIAL MKE2FS AT                       the image store's disk, until the file AT.release is there
//! vm_guest kata METHOD [FILE]                          one call of the Kata service, its request as JSON; says the answer
//! vm_guest health                                      the Kata service's health
//! vm_guest output METHOD CONTAINER [EXEC]              a process's stream to its end
//! vm_guest forward FROM TO                             gives connections on to another address, until it is ended
//! vm_guest leftovers                                   fails while loop or mapped devices are left
//! ```

use protocols::time::Timestamp;
use std::fs::File;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use image_disk::{ImageDisk, ImageDiskSettings};
use image_rs_fork::erofs::SALT;
use image_rs_fork::registry::OciLayout;
use image_rs_fork::{
    ErofsStore, ImagePolicy, Limits, MeasuredImage, NoKeys, NoProgress, SignaturePolicy, Unenforced, fetch, pull,
};
use integration_tests::kata::Shim;
use integration_tests::vm::listing;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};
use sys::device_mapper::{DeviceMapper, VerityTable};
use sys::loop_device::{LoopDevice, attached};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("! {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["verity", image, data_blocks, root, target] => verity(image, data_blocks.parse()?, root, Path::new(target)),
        ["plain", image, target] => mount(LoopDevice::attach(File::open(image)?)?.path(), Path::new(target)),
        ["image", layout, store, folder] => image(Path::new(layout), Path::new(store), Path::new(folder)),
        ["altered", layout, store, folder, offset] => {
            altered(Path::new(layout), Path::new(store), Path::new(folder), offset.parse()?)
        }
        ["remove", folder] => Ok(image_rs_fork::remove_rootfs(Path::new(folder))?),
        ["list", folder] => {
            listing(Path::new(folder)).iter().for_each(|line| println!("{line}"));
            Ok(())
        }
        ["flip", file, offset] => flip(file, offset.parse()?),
        ["disk", serial, mke2fs, at] => disk(serial, mke2fs, at),
        ["kata", method] => answered(method, "{}"),
        ["kata", method, file] => answered(method, &std::fs::read_to_string(file).context("the request")?),
        ["health"] => wait(async {
            shim().await.healthy().await;
            println!("serving");
            Ok(())
        }),
        ["output", method, container] => wait(output(method, container, "")),
        ["output", method, container, exec] => wait(output(method, container, exec)),
        ["forward", from, to] => forward(from, to),
        ["leftovers"] => leftovers(),
        _ => bail!("unknown command {arguments:?}"),
    }
}

/// Where the guest's agent listens for the shim.
const KATA: &str = "unix:///run/kata.sock";

async fn shim() -> Shim {
    Shim::connect(KATA).await
}

fn wait(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn answered(method: &str, request: &str) -> Result<()> {
    let request = serde_json::from_str(request).context("the request")?;
    wait(async {
        match shim().await.poll(method, request).await {
            Ok(answer) => println!("{answer}"),
            Err(failure) => bail!("{:?} {}", failure.code, failure.text),
        }
        Ok(())
    })
}

async fn output(method: &str, container: &str, exec: &str) -> Result<()> {
    print!("{}", shim().await.read_all(method, container, exec).await);
    Ok(())
}

fn forward(from: &str, to: &str) -> Result<()> {
    for near in TcpListener::bind(from)?.incoming() {
        let (near, far) = (near?, TcpStream::connect(to)?);
        for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to); // either end may break off
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
    Ok(())
}

/// Everything but the mount ends with this process; the kernel keeps what the mount needs.
fn verity(image: &str, data_blocks: u64, root: &str, target: &Path) -> Result<()> {
    let mut hash = [0; 32];
    hex::decode_to_slice(root, &mut hash).context("root hash")?;
    let data = LoopDevice::attach(File::open(image)?)?;
    let table = VerityTable {
        data: data.device(),
        hash: data.device(),
        data_blocks,
        hash_start: data_blocks,
        root: hash,
        salt: &SALT,
    };
    let mapper = DeviceMapper::open()?;
    mount(mapper.verity(&table)?.path(), target)
}

fn mount(device: &Path, target: &Path) -> Result<()> {
    let erofs = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen erofs")?;
    fsconfig_set_string(erofs.as_fd(), "source", device)?;
    fsconfig_set_flag(erofs.as_fd(), "ro")?;
    fsconfig_create(erofs.as_fd()).with_context(|| format!("mount {}", device.display()))?;
    let mount = fsmount(erofs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", rustix::fs::CWD, target, flags).context("move the mount")
}

/// As a launch does it: verify, store in the layout `erofs-v1`, mount; prints what enforces the measurement.
fn image(layout: &Path, store: &Path, folder: &Path) -> Result<()> {
    let store = ErofsStore::open(store, None, Unenforced::Refused)?;
    let image = pulled(layout, &store)?;
    println!("{}", store.enforcement().as_str());
    let _ = image.mount(folder)?.keep();
    Ok(())
}

/// As the agent does it at its start; prints `mounted`, or the code and why not.
fn disk(serial: &str, mke2fs: &str, at: &str) -> Result<()> {
    let settings = ImageDiskSettings { serial: serial.to_owned(), mke2fs: mke2fs.into() };
    let disk = match ImageDisk::open(&settings, Path::new(at), Duration::ZERO) {
        Ok(disk) => disk,
        Err(error) => bail!("{}: {error}", error.code()),
    };
    println!("mounted");
    while !Path::new(&format!("{at}.release")).exists() {
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(disk);
    Ok(())
}

/// An image of one layer, which somebody alters after it was measured; prints the code with which it is not mounted.
fn altered(layout: &Path, store: &Path, folder: &Path, offset: u64) -> Result<()> {
    let images = store.join("erofs-v1/images");
    let store = ErofsStore::open(store, None, Unenforced::Refused)?;
    let image = pulled(layout, &store)?;
    let stored = std::fs::read_dir(images)?.next().context("no layer is stored")??;
    flip(stored.path().join("image").to_str().context("a path")?, offset)?;
    match image.mount(folder) {
        Ok(_) => println!("mounted"),
        Err(error) => println!("{}", error.code()),
    }
    Ok(())
}

fn pulled(layout: &Path, store: &ErofsStore) -> Result<MeasuredImage> {
    let layout = OciLayout::open(layout)?;
    let reference = layout.reference(None)?;
    let policy = ImagePolicy::host(SignaturePolicy::insecure_accept_anything(), Timestamp::now());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let verified = fetch(&reference, &layout).await?.verify(&policy, &layout).await?;
        pull(verified, &layout, store, &NoKeys, &Limits::default(), &NoProgress).await
    })?)
}

fn flip(file: &str, offset: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[!byte[0]], offset)?;
    Ok(())
}

/// The kernel removes devices in the background after the last unmount, so it gets five seconds.
fn leftovers() -> Result<()> {
    let mapper = DeviceMapper::open()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (mapped, attached) = (mapper.list()?, attached()?);
        if mapped.is_empty() && attached.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("left over: mapped {mapped:?}, loop {attached:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
