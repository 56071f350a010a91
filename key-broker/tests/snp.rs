//! A guest on simulated SNP: its register is software, bound only by the report data, and the attestor holds it to it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::sync::atomic::Ordering;

use kbs_client::{ClientError, ReceiptState, Session};
use protocols::digest::Sha384Digest;
use protocols::environment::Environment;
use protocols::event_log::{MR_RTMR3, Record, replay};
use protocols::events::{Event, Image, Init, hash_str};
use protocols::guest::GuestId;
use protocols::kbs::{InitData, SnpCertificate, SnpEvidence, Tee, TeeEvidence, report_data};
use protocols::register::{HashAlg, RegisterKind};
use protocols::tcl::{Delivery, LogBinding, RecordBytes};
use protocols::time::Timestamp;
use simulated_tee::{Params, Pki};

use support::guest::question;
use support::{REFERENCE, World, digest, image, issue};

const INITDATA: &str = "algorithm = \"sha256\"\nversion = \"0.1.0\"\n";
const REPORT_ID: [u8; 32] = [5; 32];

struct Guest {
    pki: Pki,
    records: Vec<Record>,
}

impl Guest {
    fn boot(pki: Pki) -> Self {
        let mut guest = Self { pki, records: Vec::new() };
        guest.push(Init {
            v: 1,
            boot_nonce: [1; 32],
            register_kind: RegisterKind::Software,
            reg0: HashAlg::Sha384.zero(),
            agent: "0.1.0".into(),
            agent_h: digest("agent"),
            initdata: Some(digest(INITDATA).into()),
            config: digest("configuration"),
            environment: Environment::Development,
            simulated: true,
        });
        guest
    }

    fn push(&mut self, event: impl Into<Event>) {
        self.records.push(event.into().record(MR_RTMR3, HashAlg::Sha384).unwrap());
    }

    fn binding(&self) -> LogBinding {
        LogBinding {
            alg: HashAlg::Sha384,
            count: self.records.len() as u64,
            guest: GuestId::new(REPORT_ID),
            head: replay(HashAlg::Sha384.zero(), MR_RTMR3, &self.records).unwrap(),
            kind: RegisterKind::Software,
        }
    }

    fn evidence(&self, binding: &Sha384Digest) -> TeeEvidence {
        let params = Params::new(report_data(binding), *digest(INITDATA).as_bytes(), REPORT_ID);
        let certificate = |kind: &str, der: &[u8]| SnpCertificate { cert_type: kind.into(), data: der.to_vec() };
        let evidence = SnpEvidence {
            attestation_report: self.pki.report(&params).unwrap().to_json(),
            cert_chain: Some(vec![certificate("VCEK", self.pki.vcek_der()), certificate("ASK", self.pki.ask_der())]),
        };
        TeeEvidence { primary_evidence: serde_json::to_value(evidence).unwrap(), additional_evidence: String::new() }
    }

    async fn attest(&self, world: &World, initdata: &str) -> Result<Session, ClientError> {
        let challenged = world.client().challenge(Tee::Snp).await?;
        let log = self.binding();
        let evidence = self.evidence(&challenged.binding(Some(&log)).unwrap());
        let init_data = InitData { format: "toml".into(), body: initdata.into() };
        challenged.attest(evidence, Some(log), Some(init_data)).await
    }

    fn delivery(&self, session: &Session) -> Delivery {
        let log = self.binding();
        let evidence = self.evidence(&session.binding(&log).unwrap());
        let records = self.records.iter().map(|record| RecordBytes(record.bytes().to_vec())).collect();
        Delivery { from: 0, records, log, evidence }
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> &'static str {
    result.unwrap_err().code().as_str()
}

#[tokio::test]
async fn a_launch_on_snp_passes_and_its_software_register_is_held_to_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki")).unwrap();
    let ark = directory.path().join("pki/ark.pem").display().to_string();
    let world = World::edited(directory, "development", |text| {
        text.replace("\"tpm-listed\"", "\"software\"")
            + &format!("\n[[snp.root]]\npath = \"{ark}\"\nsimulated = true\n")
    })
    .await;
    let now = Timestamp::now();
    world.clock.store(now.0, Ordering::SeqCst);
    let fresh = protocols::golden::Issue { expires: now.plus(1000), ..issue(1) };
    world.push(&image(), world.envelope(&image(), fresh)).await;

    let mut guest = Guest::boot(pki);
    assert_eq!(code(guest.attest(&world, &INITDATA.replace("0.1.0", "0.1.1")).await), "evidence.initdata");
    let session = guest.attest(&world, INITDATA).await.unwrap();
    let protocols::image::ImageMeasurement { manifest, config, rootfs, .. } = image();
    guest.push(Image { seq: 1, ref_h: hash_str(REFERENCE), manifest, config, rootfs });
    let receipt = session.deliver(guest.delivery(&session), &ReceiptState::none()).await.unwrap();
    let verdict = session.decide(&question(1, &image()), &ReceiptState::after(&receipt)).await.unwrap();
    assert!(verdict.refusal().is_none(), "{verdict:?}");

    // The host shows the log without its last record, or with a head of its choice: the report says otherwise.
    let receipts = ReceiptState::after(&receipt);
    let mut shorter = guest.delivery(&session);
    shorter.records.pop();
    shorter.log.count = 1;
    assert_eq!(code(session.deliver(shorter, &receipts).await), "evidence.nonce");
    let mut claimed = guest.delivery(&session);
    claimed.log.head = HashAlg::Sha384.zero();
    assert_eq!(code(session.deliver(claimed, &receipts).await), "evidence.nonce");
    // Another guest of the same chip.
    let mut other = guest.delivery(&session);
    other.log.guest = GuestId::new([6; 32]);
    other.evidence = guest.evidence(&session.binding(&other.log).unwrap());
    assert_eq!(code(session.deliver(other, &receipts).await), "evidence.guest");
}
