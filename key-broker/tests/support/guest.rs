//! A guest: a TPM whose PCR 14 holds its event log, and the steps an agent takes.

use kbs_client::{Challenged, Client, ClientError, Question, ReceiptState, Session, VerifiedReceipt, VerifiedVerdict};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::event_log::Record;
use protocols::events::{
    Copied, CopyFile, Created, Event, Exec, Exit, ExitReason, Failed, Image, Init, Launch, Pause, Policy, Started,
    hash_list, hash_str,
};
use protocols::guest::GuestId;
use protocols::image::{ImageMeasurement, ProcessRequest};
use protocols::kbs::{Tee, TeeEvidence, tpm_nonce};
use protocols::reason;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::tcl::{Delivery, LogBinding, RecordBytes};

use super::tpm::SoftTpm;
use super::{REFERENCE, digest};

pub(crate) const PCR: u32 = 14;

#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) tpm: SoftTpm,
    /// Where it keeps its log.
    pub(crate) pcr: u32,
    pub(crate) records: Vec<Record>,
    pub(crate) boot_nonce: [u8; 32],
    pub(crate) receipts: ReceiptState,
    pub(crate) environment: Environment,
    pub(crate) simulated: bool,
}

impl Guest {
    /// A guest whose log holds its first record.
    pub(crate) fn boot(tpm: &SoftTpm, boot_nonce: u8) -> Self {
        Self::boot_as(tpm, boot_nonce, Environment::Development, true)
    }

    pub(crate) fn boot_as(tpm: &SoftTpm, boot_nonce: u8, environment: Environment, simulated: bool) -> Self {
        Self::boot_in(PCR, tpm, boot_nonce, environment, simulated)
    }

    pub(crate) fn boot_in(pcr: u32, tpm: &SoftTpm, boot_nonce: u8, environment: Environment, simulated: bool) -> Self {
        let mut guest = Self {
            tpm: tpm.clone(),
            pcr,
            records: Vec::new(),
            boot_nonce: [boot_nonce; 32],
            receipts: ReceiptState::none(),
            environment,
            simulated,
        };
        let init = guest.init();
        guest.push(init);
        guest
    }

    fn init(&self) -> Init {
        Init {
            v: 1,
            boot_nonce: self.boot_nonce,
            register_kind: RegisterKind::TpmListed,
            reg0: HashAlg::Sha256.zero(),
            agent: "0.1.0".into(),
            agent_h: digest("agent"),
            initdata: None,
            config: digest("configuration"),
            environment: self.environment,
            simulated: self.simulated,
        }
    }

    pub(crate) fn push(&mut self, event: impl Into<Event>) {
        let record = event.into().record(self.pcr, HashAlg::Sha256).unwrap();
        self.tpm.extend(self.pcr as usize, record.digest().as_bytes());
        self.records.push(record);
    }

    pub(crate) fn push_image(&mut self, seq: u64, image: &ImageMeasurement) {
        let ImageMeasurement { manifest, config, rootfs, .. } = image.clone();
        self.push(Image { seq, ref_h: hash_str(REFERENCE), manifest, config, rootfs });
    }

    pub(crate) fn push_failed(&mut self, seq: u64) {
        self.push(Failed { seq, code: reason::GOLDEN_MISSING });
    }

    /// The pause container's launch, up to where the agent waits for the receipt; its bundle's digest.
    pub(crate) fn push_pause(&mut self, seq: u64) -> Sha256Digest {
        let rootfs = super::image().rootfs;
        let (args_h, none_h, cwd_h) = (hash_list(&["/pause"]), hash_list::<&str>(&[]), hash_str("/"));
        let pause = Pause { seq, rootfs, args_h, env_h: none_h, cwd_h, uid: 0, gid: 0 };
        let bundle = pause.bundle().unwrap();
        self.push(pause);
        self.push(Launch {
            seq,
            cid_h: hash_str("pod"),
            image_manifest: None,
            rootfs,
            args_h,
            env_h: none_h,
            cwd_h,
            uid: 0,
            gid: 0,
            caps_h: none_h,
            mounts_h: none_h,
            oci_h: Sha384Digest::of(b"spec"),
            policy_h: digest("policy"),
            runtime: digest("runtime"),
        });
        bundle
    }

    /// The pause container runs; then a process in it, a file and a policy from the host.
    pub(crate) fn push_pod(&mut self, seq: u64) {
        let (none_h, cwd_h) = (hash_list::<&str>(&[]), hash_str("/"));
        self.push(Created {
            seq,
            config_h: digest("config.json"),
            rootfs_enforced: super::image().rootfs.layout,
            runtime_h: digest("runtime"),
            argv_h: none_h,
        });
        self.push(Started { seq });
        self.push(CopyFile {
            path_h: hash_str("/hosts"),
            content: Copied::File(digest("hosts")),
            mode: 0o644,
            uid: 0,
            gid: 0,
        });
        self.push(Policy { old: None, new: digest("policy") });
        let process_h = Sha384Digest::of(b"process");
        let cid_h = hash_str("pod");
        self.push(Exec { seq, cid_h, args_h: none_h, env_h: none_h, cwd_h, uid: 0, gid: 0, process_h, n: 1 });
    }

    pub(crate) fn push_exit(&mut self) {
        let cid_h = hash_str("gone");
        self.push(Exit { seq: None, cid_h, status: None, reason: ExitReason::AgentRestart });
    }

    pub(crate) fn id(&self) -> GuestId {
        GuestId::of_tpm(&self.tpm.ak_der(), self.tpm.reset_count, &self.boot_nonce)
    }

    pub(crate) fn head(&self) -> RegisterValue {
        RegisterValue::Sha256(self.tpm.pcrs[self.pcr as usize])
    }

    pub(crate) fn binding(&self) -> LogBinding {
        LogBinding {
            alg: HashAlg::Sha256,
            count: self.records.len() as u64,
            guest: self.id(),
            head: self.head(),
            kind: RegisterKind::TpmListed,
        }
    }

    pub(crate) fn evidence(&self, binding: &Sha384Digest) -> TeeEvidence {
        self.tpm.quote(&tpm_nonce(binding))
    }

    pub(crate) async fn challenge(&self, client: &Client) -> Challenged {
        client.challenge(Tee::Tpm).await.unwrap()
    }

    pub(crate) async fn attest(&self, client: &Client) -> Result<Session, ClientError> {
        let challenged = client.challenge(Tee::Tpm).await?;
        let log = self.binding();
        let evidence = self.evidence(&challenged.binding(Some(&log)).unwrap());
        challenged.attest(evidence, Some(log), None).await
    }

    /// Records from `from` on with a fresh quote.
    pub(crate) fn delivery(&self, session: &Session, from: usize) -> Delivery {
        let log = self.binding();
        let evidence = self.evidence(&session.binding(&log).unwrap());
        let records = self.records[from..].iter().map(|record| RecordBytes(record.bytes().to_vec())).collect();
        Delivery { from: from as u64, records, log, evidence }
    }

    /// Delivers what the attestor has not receipted, and remembers the receipt.
    pub(crate) async fn deliver(&mut self, session: &Session) -> Result<VerifiedReceipt, ClientError> {
        let delivery = self.delivery(session, self.receipts.count() as usize);
        let receipt = session.deliver(delivery, &self.receipts).await?;
        self.receipts = ReceiptState::after(&receipt);
        Ok(receipt)
    }

    /// Records the image and asks for the decision on it.
    pub(crate) async fn decide(
        &mut self,
        session: &Session,
        seq: u64,
        image: &ImageMeasurement,
    ) -> Result<VerifiedVerdict, ClientError> {
        self.push_image(seq, image);
        self.ask(session, &question(seq, image)).await
    }

    pub(crate) async fn ask(&mut self, session: &Session, question: &Question) -> Result<VerifiedVerdict, ClientError> {
        if self.receipts.count() < self.records.len() as u64 {
            self.deliver(session).await?;
        }
        session.decide(question, &self.receipts).await
    }
}

pub(crate) fn question(seq: u64, image: &ImageMeasurement) -> Question {
    Question {
        cid: format!("container-{seq}"),
        seq,
        reference: REFERENCE.into(),
        image: image.clone(),
        process: ProcessRequest::from(&image.process),
    }
}
