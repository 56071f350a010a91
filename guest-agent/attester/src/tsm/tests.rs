use std::io;
use std::path::Path;

use super::fake::{FakeConfigfs, Trouble};
use super::*;

const IN: [u8; 64] = [0x44; 64];

fn driver(root: &Path, provider: &'static str) -> FakeConfigfs {
    // The answer tells what was asked: 5000 bytes, longer than a page and than one read.
    let report = |inblob: &[u8], level: &str| [inblob, level.as_bytes(), &[7; 5000]].concat();
    FakeConfigfs::new(root, provider, Box::new(report))
}

fn ask(fake: FakeConfigfs) -> Result<TsmReport, String> {
    fake.tsm().report(PROVIDER_TDX, &IN, Ask::default()).map_err(|error| error.to_string())
}

fn is_empty(root: &Path) -> bool {
    std::fs::read_dir(root).unwrap().next().is_none()
}

#[test]
fn a_report_is_over_what_was_written_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let report = ask(driver(dir.path(), PROVIDER_TDX)).unwrap();
    assert_eq!(report.outblob, [&IN[..], &[7; 5000]].concat());
    assert_eq!(report.auxblob, None);
    assert!(is_empty(dir.path()));
}

#[test]
fn privilege_level_and_certificates_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let tsm = driver(dir.path(), PROVIDER_SNP).with_auxblob(b"certificates").tsm();
    let report = tsm.report(PROVIDER_SNP, &IN, Ask { privlevel: Some(0), auxblob: true }).unwrap();
    assert_eq!(report.outblob, [&IN[..], b"0", &[7; 5000]].concat());
    assert_eq!(report.auxblob.as_deref(), Some(&b"certificates"[..]));
    assert!(is_empty(dir.path()));
}

#[test]
fn a_busy_host_is_waited_for_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let busy = |times| ask(driver(dir.path(), PROVIDER_TDX).with_trouble(Trouble::Busy(times)));
    busy(1).unwrap();
    busy(ATTEMPTS - 1).unwrap();
    assert!(busy(ATTEMPTS).unwrap_err().contains("outblob: "));
    assert!(is_empty(dir.path()));
}

#[test]
fn trouble_gives_no_report_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (trouble, word) in [
        (Trouble::TimedOut, "timed out"),
        (Trouble::OtherWriter, "generation 2 after 1 writes"),
        (Trouble::Empty, "the report is empty"),
        (Trouble::Endless, "longer than"),
    ] {
        let error = ask(driver(dir.path(), PROVIDER_TDX).with_trouble(trouble)).unwrap_err();
        assert!(error.contains(word), "{trouble:?}: {error}");
        assert!(is_empty(dir.path()), "{trouble:?}");
    }
}

#[test]
fn another_platform_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = ask(driver(dir.path(), PROVIDER_SNP)).unwrap_err();
    assert!(error.contains("from `sev_guest` here, not from `tdx_guest`"), "{error}");
    assert!(is_empty(dir.path()));
}

#[test]
fn a_kernel_without_the_interface_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let tsm = Tsm::new(&dir.path().join("none"));
    assert!(!tsm.is_present());
    let error = tsm.report(PROVIDER_TDX, &IN, Ask::default()).unwrap_err().to_string();
    assert!(error.contains("configfs-tsm needs Linux 6.7"), "{error}");
    // A directory that is not configfs: nobody makes the attributes.
    let tsm = Tsm::new(dir.path());
    assert!(tsm.report(PROVIDER_TDX, &IN, Ask::default()).unwrap_err().to_string().contains("provider: "));
    assert!(is_empty(dir.path()));
}

#[test]
fn an_attribute_is_written_at_once_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Configfs::new(dir.path());
    fs.create("r").unwrap();
    std::fs::write(dir.path().join("r/inblob"), []).unwrap();
    fs.write("r", "inblob", &IN).unwrap();
    assert_eq!(fs.read("r", "inblob").unwrap(), IN);
    std::os::unix::fs::symlink("/dev/full", dir.path().join("r/full")).unwrap();
    assert_eq!(fs.write("r", "full", &IN).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.write("r", "none", &IN).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fs.create("r").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

/// A pipe gives what is there, as a short read does: less than asked for is not the end.
#[test]
fn a_report_that_comes_in_pieces_is_read_whole() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let dir = tempfile::tempdir().unwrap();
    let fs = Configfs::new(dir.path());
    fs.create("r").unwrap();
    let path = dir.path().join("r/outblob");
    mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let whole: Vec<u8> = (0..5000u32).map(|n| n.to_le_bytes()[0]).collect();
    std::thread::scope(|scope| {
        let written = whole.clone();
        scope.spawn(move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            for piece in written.chunks(700) {
                io::Write::write_all(&mut pipe, piece).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(fs.read("r", "outblob").unwrap(), whole);
    });
}
