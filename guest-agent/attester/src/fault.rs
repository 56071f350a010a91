//! Fault injection around real attesters and real files, for tests of every crate above.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::register::{HashAlg, RegisterValue};

use crate::event_log::LogIo;
use crate::{Attester, AttesterError, RegisterInfo};

const ALL: u64 = u64::MAX;
const INJECTED: &str = "injected fault";

/// A real attester that refuses when told to.
#[derive(Debug)]
pub struct FaultyAttester<A> {
    inner: A,
    extends_left: AtomicU64,
    answers_left: AtomicU64,
    reads_left: AtomicU64,
    evidence_left: AtomicU64,
}

impl<A: Attester> FaultyAttester<A> {
    /// Wraps `inner`; nothing is refused yet.
    pub fn new(inner: A) -> Self {
        let all = || AtomicU64::new(ALL);
        Self { inner, extends_left: all(), answers_left: all(), reads_left: all(), evidence_left: all() }
    }

    /// Lets `count` more extends pass, then refuses all.
    pub fn refuse_extend_after(&self, count: u64) {
        self.extends_left.store(count, Ordering::SeqCst);
    }

    /// Lets `count` more extends pass; then the register moves, but the answer is lost.
    pub fn lose_answer_after(&self, count: u64) {
        self.answers_left.store(count, Ordering::SeqCst);
    }

    /// Lets `count` more reads of the register pass, then refuses all.
    pub fn refuse_read_after(&self, count: u64) {
        self.reads_left.store(count, Ordering::SeqCst);
    }

    /// Nothing is refused any more.
    pub fn repair(&self) {
        for left in [&self.extends_left, &self.answers_left, &self.reads_left, &self.evidence_left] {
            left.store(ALL, Ordering::SeqCst);
        }
    }

    /// Lets `count` more calls for evidence pass, then refuses all.
    pub fn refuse_evidence_after(&self, count: u64) {
        self.evidence_left.store(count, Ordering::SeqCst);
    }

    fn passes(left: &AtomicU64) -> bool {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }
}

impl<A: Attester> Attester for FaultyAttester<A> {
    fn tee(&self) -> Tee {
        self.inner.tee()
    }

    fn register(&self) -> RegisterInfo {
        self.inner.register()
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        self.inner.register_start()
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        if Self::passes(&self.reads_left) {
            return self.inner.read_register();
        }
        Err(AttesterError::RegisterUnavailable { detail: INJECTED.to_owned() })
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        if Self::passes(&self.extends_left) {
            self.inner.extend(digest)?;
            if Self::passes(&self.answers_left) {
                return Ok(());
            }
        }
        Err(AttesterError::RegisterExtend { detail: INJECTED.to_owned() })
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        if Self::passes(&self.evidence_left) {
            return self.inner.evidence(binding);
        }
        Err(AttesterError::EvidenceUnavailable { detail: INJECTED.to_owned() })
    }

    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        self.inner.guest(boot_nonce)
    }

    fn boot_pcr(&self, index: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        self.inner.boot_pcr(index)
    }

    fn initdata_alg(&self) -> HashAlg {
        self.inner.initdata_alg()
    }

    fn initdata_bound(&self) -> Option<RegisterValue> {
        self.inner.initdata_bound()
    }

    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        self.inner.bind_initdata(digest)
    }
}

/// What happens at the chosen operation of a [`FaultyIo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It and all after it answer "no space left" and do nothing, until [`FaultyIo::repair`].
    Refuse,
    /// As [`Fault::Refuse`], but an append first writes this many bytes.
    Short(usize),
    /// The process ends before it: nothing happens any more.
    CrashBefore,
    /// The process ends after it.
    CrashAfter,
}

/// Real file operations that fail at the chosen one. Operations that change something are counted from 0.
#[derive(Debug)]
pub struct FaultyIo<I> {
    inner: I,
    at: u64,
    fault: Fault,
    done: AtomicU64,
    repaired: AtomicBool,
}

impl<I: LogIo> FaultyIo<I> {
    /// Wraps `inner`; `fault` happens at operation `at`.
    pub const fn new(inner: I, at: u64, fault: Fault) -> Self {
        Self { inner, at, fault, done: AtomicU64::new(0), repaired: AtomicBool::new(false) }
    }

    /// Ends the fault.
    pub fn repair(&self) {
        self.repaired.store(true, Ordering::SeqCst);
    }

    /// Operations so far, the refused ones too.
    pub fn operations(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn run(&self, whole: impl Fn() -> io::Result<()>, part: impl Fn(usize)) -> io::Result<()> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        if number < self.at || self.repaired.load(Ordering::SeqCst) {
            return whole();
        }
        match self.fault {
            Fault::CrashAfter if number == self.at => whole()?,
            Fault::Short(size) => part(size),
            Fault::Refuse | Fault::CrashBefore | Fault::CrashAfter => {}
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl<I: LogIo> LogIo for FaultyIo<I> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.inner.read(name)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.run(|| self.inner.replace(name, bytes), |_| ())
    }

    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let part = |size| {
            let _ = self.inner.append(name, at, bytes.get(..size).unwrap_or(bytes));
        };
        self.run(|| self.inner.append(name, at, bytes), part)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.run(|| self.inner.remove(name), |_| ())
    }
}
