//! The same archives read by others: the `tar` crate, GNU tar and Python's tarfile, where they are installed.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::build::{Archive, Form, device, dir, file, hardlink, head, symlink};
use super::list::{checksum, parse};
use crate::tar::TarLimits;

/// One entry of a well-formed archive.
#[derive(Debug, Clone)]
struct Plan {
    path: String,
    letter: char,
    target: String,
    content: Vec<u8>,
    mode: u64,
    uid: i64,
    mtime: i64,
    form: Form,
    long_by_gnu: bool,
    size_by_pax: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        "[a-z]{1,12}(/[a-zA-Z0-9._+-]{0,3}[a-z]{1,60}){0,4}",
        prop::sample::select(vec!['f', 'f', 'f', 'd', 'l', 'h', 'c', 'b', 'p']),
        "[a-z]{1,30}(/[a-z]{1,60}){0,3}",
        prop::collection::vec(any::<u8>(), 0..2000),
        0..0o10000u64,
        prop_oneof![0..70_000i64, 0..4_294_967_295i64],
        prop_oneof![0..2_000_000_000i64, 0..1i64 << 40],
        prop::sample::select(vec![Form::Ustar, Form::Gnu]),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(path, letter, target, content, mode, uid, mtime, form, long_by_gnu, size_by_pax)| Plan {
            content: if letter == 'f' { content } else { Vec::new() },
            path,
            letter,
            target,
            mode,
            uid,
            mtime,
            form,
            long_by_gnu,
            size_by_pax,
        })
}

/// Writes the archive as some tool would, and what must be read from it.
fn write(plans: &[Plan]) -> (Vec<u8>, String) {
    let mut archive = Archive::new();
    let mut want = String::new();
    for plan in plans {
        let has_target = matches!(plan.letter, 'l' | 'h');
        let long_path = plan.path.len() > 100;
        let long_target = has_target && plan.target.len() > 100;
        let size = plan.content.len().to_string();
        let mut records: Vec<(&str, &[u8])> = Vec::new();
        if plan.size_by_pax && plan.letter == 'f' {
            records.push(("size", size.as_bytes()));
        }
        if plan.long_by_gnu {
            if long_path {
                archive = archive.long_name(&plan.path);
            }
            if long_target {
                archive = archive.long_link(&plan.target);
            }
        } else {
            if long_path {
                records.push(("path", plan.path.as_bytes()));
            }
            if long_target {
                records.push(("linkpath", plan.target.as_bytes()));
            }
        }
        if !records.is_empty() {
            archive = archive.pax(&records);
        }
        let name = plan.path.get(..100).unwrap_or(&plan.path);
        let target = plan.target.get(..100).unwrap_or(&plan.target);
        let head = match plan.letter {
            'f' => file(name),
            'd' => dir(name),
            'l' => symlink(name, target),
            'h' => hardlink(name, target),
            'c' => device(b'3', name, 5, 1),
            'b' => device(b'4', name, 8, 17),
            _ => head(b'6', name),
        };
        let head = head.mode(plan.mode).owner(plan.uid, plan.uid / 2).mtime(plan.mtime).form(plan.form);
        archive = archive.entry(head, &plan.content);
        writeln!(want, "{}", line(plan)).unwrap();
    }
    (archive.end(), want)
}

fn line(plan: &Plan) -> String {
    let Plan { letter, mode, uid, mtime, path, target, content, .. } = plan;
    let rest = match letter {
        'f' => format!(" {} {:08x}", content.len(), checksum(content)),
        'l' => format!(" -> {target}"),
        'h' => format!(" = /{target}"),
        'c' => " 5:1".to_owned(),
        'b' => " 8:17".to_owned(),
        _ => String::new(),
    };
    format!("{letter}{mode:04o} {uid}:{} {mtime} /{path}{rest}", uid / 2)
}

/// What our parser reads, contents as sums.
fn ours(archive: &[u8]) -> String {
    struct Sums(super::list::List, u32);
    impl crate::tar::EntrySink for Sums {
        type Error = crate::tar::TarError;
        fn entry(&mut self, meta: &crate::tar::EntryMeta<'_>) -> Result<(), Self::Error> {
            self.0.entry(meta)?;
            self.1 = 0x811c_9dc5;
            Ok(())
        }
        fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
            self.1 = bytes.iter().fold(self.1, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
            self.0.skip(bytes.len());
            Ok(())
        }
        fn end(&mut self) -> Result<(), Self::Error> {
            if self.0.is_file() {
                write!(self.0.text, " {:08x}", self.1).unwrap();
            }
            self.0.end()
        }
    }
    let mut parser = crate::tar::Parser::default();
    let mut sink = Sums(super::list::List::default(), 0);
    parser.push(archive, &mut sink).unwrap();
    parser.finish().unwrap();
    sink.0.text
}

/// What the `tar` crate reads.
fn tar_crate(archive: &[u8]) -> String {
    let mut text = String::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let target = entry.link_name_bytes().unwrap_or_default();
        let target = String::from_utf8(target.to_vec()).unwrap();
        let (letter, rest) = match header.entry_type() {
            tar::EntryType::Regular => ('f', format!(" {} {:08x}", content.len(), checksum(&content))),
            tar::EntryType::Directory => ('d', String::new()),
            tar::EntryType::Symlink => ('l', format!(" -> {target}")),
            tar::EntryType::Link => ('h', format!(" = /{target}")),
            tar::EntryType::Fifo => ('p', String::new()),
            other => {
                let letter = if other == tar::EntryType::Char { 'c' } else { 'b' };
                let device = (header.device_major().unwrap().unwrap(), header.device_minor().unwrap().unwrap());
                (letter, format!(" {}:{}", device.0, device.1))
            }
        };
        let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        writeln!(text, "{letter}{mode:04o} {uid}:{gid} {} /{path}{rest}", header.mtime().unwrap()).unwrap();
    }
    text
}

/// Runs a tool over the archive.
fn run(program: &str, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").env("TZ", "UTC");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const PYTHON: &str = r#"
import sys, tarfile
def fnv(data):
    h = 0x811c9dc5
    for b in data:
        h = ((h ^ b) * 0x01000193) & 0xffffffff
    return h
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as t:
    for m in t:
        rest = ""
        if m.isreg():
            letter, data = "f", t.extractfile(m).read()
            rest = " %d %08x" % (len(data), fnv(data))
        elif m.isdir(): letter = "d"
        elif m.issym(): letter, rest = "l", " -> " + m.linkname
        elif m.islnk(): letter, rest = "h", " = /" + m.linkname
        elif m.ischr(): letter, rest = "c", " %d:%d" % (m.devmajor, m.devminor)
        elif m.isblk(): letter, rest = "b", " %d:%d" % (m.devmajor, m.devminor)
        else: letter = "p"
        print("%s%04o %d:%d %d /%s%s" % (letter, m.mode, m.uid, m.gid, m.mtime, m.name, rest))
"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn well_formed_archives_read_as_planned_and_as_the_tar_crate_reads_them(
        plans in prop::collection::vec(plan(), 0..12),
    ) {
        let (archive, want) = write(&plans);
        prop_assert_eq!(&ours(&archive), &want);
        prop_assert_eq!(&tar_crate(&archive), &want);
    }
}

#[test]
fn well_formed_archives_read_as_pythons_tarfile_reads_them() {
    let plans = sample(200);
    let (archive, want) = write(&plans);
    assert_eq!(ours(&archive), want);
    assert_eq!(run("python3", &["-c", PYTHON], &archive), want, "python3");
}

#[test]
fn well_formed_archives_read_as_gnu_tar_lists_them() {
    let plans = sample(200);
    let (archive, _) = write(&plans);
    let want: String = plans
        .iter()
        .map(|plan| {
            let target = match plan.letter {
                'l' => format!(" -> {}", plan.target),
                'h' => format!(" link to {}", plan.target),
                _ => String::new(),
            };
            let size = match plan.letter {
                'c' => "5,1".to_owned(),
                'b' => "8,17".to_owned(),
                _ => plan.content.len().to_string(),
            };
            format!("{} {}/{} {size} {}{target}\n", plan.letter, plan.uid, plan.uid / 2, plan.path)
        })
        .collect();
    let listing = run("tar", &["-tv", "--numeric-owner", "-f", "-"], &archive);
    let got: String = listing
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut word = || words.next().unwrap();
            let letter = word().chars().next().map(|c| if c == '-' { 'f' } else { c }).unwrap();
            let (owner, size, _date, _time) = (word(), word(), word(), word());
            format!("{letter} {owner} {size} {}\n", words.collect::<Vec<_>>().join(" "))
        })
        .collect();
    for (got, want) in got.lines().zip(want.lines()) {
        assert_eq!(got, want);
    }
    assert_eq!(got.lines().count(), want.lines().count());
}

/// The same plans every time.
fn sample(count: usize) -> Vec<Plan> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let plans = prop::collection::vec(plan(), count);
    proptest::strategy::ValueTree::current(&plans.new_tree(&mut runner).unwrap())
}

#[test]
fn archives_gnu_tar_writes_are_read_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/plain"), b"content").unwrap();
    std::fs::write(root.join(format!("d/{}", "long".repeat(40))), b"x").unwrap();
    let sparse = std::fs::File::create(root.join("d/sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1_500_000).unwrap();
    std::os::unix::fs::symlink("../elsewhere", root.join("d/link")).unwrap();
    std::fs::hard_link(root.join("d/plain"), root.join("d/zhard")).unwrap();
    let base = ["-C", root.to_str().unwrap(), "--sort=name", "--mtime=@1700000000", "--owner=3000000", "--group=5"];
    for format in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
        &["--format=pax", "--pax-option=globexthdr.name=g,comment=all"],
    ] {
        let archive = archive_of(&[&["-c"][..], &base, format, &["-f", "-", "d"]].concat());
        let mut filled = vec![0; 3_000_000];
        filled[1_500_000..1_500_006].copy_from_slice(b"middle");
        let long = "long".repeat(40);
        let mode = |name: &str| {
            let meta = std::fs::symlink_metadata(root.join(name)).unwrap();
            format!("{:04o}", std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777)
        };
        let own = "3000000:5 1700000000";
        let want = format!(
            "d{} {own} /d\nl{} {own} /d/link -> ../elsewhere\nf{} {own} /d/{long} 1 {:08x}\nf{} {own} /d/plain 7 {:08x}\n\
             f{} {own} /d/sparse 3000000 {:08x}\nh{} {own} /d/zhard = /d/plain\n",
            mode("d"),
            mode("d/link"),
            mode(&format!("d/{long}")),
            checksum(b"x"),
            mode("d/plain"),
            checksum(b"content"),
            mode("d/sparse"),
            checksum(&filled),
            mode("d/zhard"),
        );
        assert_eq!(ours(&archive), want, "{format:?}");
        assert!(parse(&archive, TarLimits::default(), &[1000]).1.is_ok());
    }
}

fn archive_of(args: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
