//! Fault injection around real attesters and real files, for tests of every crate above.

use std::sync::atomic::{AtomicU64, Ordering};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::register::RegisterValue;

use crate::{Attester, AttesterError, RegisterInfo};

/// A real attester that refuses when told to.
#[derive(Debug)]
pub struct FaultyAttester<A> {
    inner: A,
    extends_left: AtomicU64,
    evidence_left: AtomicU64,
}

impl<A: Attester> FaultyAttester<A> {
    /// Wraps `inner`; nothing is refused yet.
    pub fn new(inner: A) -> Self {
        Self { inner, extends_left: AtomicU64::new(u64::MAX), evidence_left: AtomicU64::new(u64::MAX) }
    }

    /// Lets `count` more extends pass, then refuses all.
    pub fn refuse_extend_after(&self, count: u64) {
        self.extends_left.store(count, Ordering::SeqCst);
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
        self.inner.read_register()
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        if Self::passes(&self.extends_left) {
            return self.inner.extend(digest);
        }
        Err(AttesterError::RegisterExtend { detail: "injected fault".to_owned() })
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        if Self::passes(&self.evidence_left) {
            return self.inner.evidence(binding);
        }
        Err(AttesterError::EvidenceUnavailable { detail: "injected fault".to_owned() })
    }

    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        self.inner.guest(boot_nonce)
    }

    fn boot_pcr(&self, index: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        self.inner.boot_pcr(index)
    }

    fn initdata_bound(&self) -> Option<Sha256Digest> {
        self.inner.initdata_bound()
    }
}
