//! Whatever archive we accept, Go's `archive/tar`, which containerd reads with, finds the same in it. What is
//! refused here and accepted there is listed in the module's decisions.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::cases::all;
use super::robust::{Change, apply, change};
use crate::tar::{EntryKind, EntryMeta, EntrySink, Parser, TarError, TarLimits};

/// Writes down entries as `reader.go` does.
#[derive(Default)]
struct Lines {
    text: String,
    attributes: String,
    sum: u32,
    size: u64,
}

impl EntrySink for Lines {
    type Error = TarError;

    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), TarError> {
        let rooted = |path: &[u8]| [b"/", path].concat();
        let (kind, target) = match meta.kind {
            EntryKind::File { .. } => ('0', Vec::new()),
            EntryKind::Hardlink { target } => ('1', rooted(target.as_bytes())),
            EntryKind::Symlink { target } => ('2', target.to_vec()),
            EntryKind::Char { major, minor } => ('3', format!("{major}:{minor}").into_bytes()),
            EntryKind::Block { major, minor } => ('4', format!("{major}:{minor}").into_bytes()),
            EntryKind::Dir => ('5', Vec::new()),
            EntryKind::Fifo => ('6', Vec::new()),
        };
        let (path, target) = (hex::encode(rooted(meta.path.as_bytes())), hex::encode(target));
        write!(self.text, "{kind}{:04o} {}:{} ", meta.mode, meta.uid, meta.gid).unwrap();
        write!(self.text, "{}+{} {path} {target}", meta.mtime, meta.mtime_nsec).unwrap();
        let attribute = |(name, value)| format!(" {}={}", hex::encode(name), hex::encode(value));
        self.attributes = meta.xattrs.iter().map(attribute).collect();
        self.sum = 0x811c_9dc5;
        self.size = meta.size();
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.sum = bytes.iter().fold(self.sum, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        Ok(())
    }

    fn end(&mut self) -> Result<(), TarError> {
        writeln!(self.text, " {} {:08x}{}", self.size, self.sum, self.attributes).unwrap();
        Ok(())
    }
}

fn ours(archive: &[u8]) -> Option<String> {
    let mut lines = Lines::default();
    let mut parser = Parser::new(TarLimits { file_bytes: 1 << 25, ..TarLimits::default() });
    parser.push(archive, &mut lines).ok()?;
    parser.finish().ok()?;
    Some(lines.text)
}

/// What Go finds in each archive.
fn go(archives: Vec<Vec<u8>>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("reader.go"), folder.path().join("reader"));
    std::fs::write(&source, include_str!("reader.go")).unwrap();
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&program).arg(&source).env("GO111MODULE", "off").env("GOCACHE", folder.path());
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = std::thread::spawn(move || {
        for archive in archives {
            stdin.write_all(&u32::try_from(archive.len()).unwrap().to_le_bytes()).unwrap();
            stdin.write_all(&archive).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split("== ").skip(1).map(|part| part.split_once('\n').unwrap().1.to_owned()).collect()
}

#[test]
#[ignore = "needs a Go toolchain, too much to install for one comparison"]
fn what_is_accepted_reads_as_go_reads_it() {
    let cases: Vec<Vec<u8>> = all().into_iter().map(|(_, archive)| archive).filter(|a| a.len() < 20_000).collect();
    let mut archives = cases.clone();
    let damage = (0..cases.len(), prop::collection::vec(change(), 0..6), any::<bool>());
    let mut runner = TestRunner::deterministic();
    while archives.len() < 5000 {
        let (case, changes, mend) = damage.new_tree(&mut runner).unwrap().current();
        let mut archive = cases[case].clone();
        apply(&mut archive, &changes);
        if mend {
            apply(&mut archive, &[Change::Mend]);
        }
        archives.push(archive);
    }
    let theirs = go(archives.clone());
    let mut accepted = 0;
    for (archive, theirs) in archives.iter().zip(&theirs) {
        if let Some(ours) = ours(archive) {
            assert_eq!(&ours, theirs);
            accepted += 1;
        }
    }
    assert!(accepted > 1000, "{accepted} archives were compared");
}
