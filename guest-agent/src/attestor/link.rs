//! The real link.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use kbs_client::{Client, ClientError, Question, ReceiptState, Session, VerifiedReceipt, VerifiedVerdict};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::kbs::{InitData, TeeEvidence};
use protocols::reason::{self, Refusal};
use protocols::resource::ResourcePath;
use protocols::tcl::{Delivery, GoldenResource, LogBinding, MAX_RECORDS_PER_REQUEST, RecordBytes};
use protocols::time::Timestamp;
use tokio::sync::{Mutex, watch};
use zeroize::Zeroizing;

use super::RemoteAttestor;
use super::memory::ReceiptFile;
use crate::error::AgentError;
use crate::journal::Journal;

/// One attested session with the attestor, made when it is needed and made anew, once, when it has ended.
///
/// Deliveries go one after another, because the attestor sees one history; what waits meanwhile goes with the next.
/// Decisions and resources wait for nothing of other containers.
#[derive(Debug)]
pub struct AttestorLink {
    client: Client,
    journal: Arc<Journal>,
    init_data: Option<InitData>,
    file: ReceiptFile,
    /// Held while a session is made: whoever needs one waits for the same.
    session: Mutex<Option<Arc<Session>>>,
    /// Held over one delivery.
    delivery: Mutex<Failed>,
    receipts: watch::Sender<ReceiptState>,
    delivered: watch::Sender<u64>,
    last_time: AtomicU64,
}

/// When the last delivery began that failed, and why: those that waited for it share its failure, or they would one
/// after another wait for an attestor that does not answer.
#[derive(Debug, Default)]
struct Failed(Option<(Instant, ClientError)>);

impl AttestorLink {
    /// A link that has not met the attestor yet. The last receipt of an earlier life is kept at `receipt_file`.
    #[must_use]
    pub fn new(client: Client, journal: Arc<Journal>, init_data: Option<InitData>, receipt_file: PathBuf) -> Self {
        let file = ReceiptFile::new(receipt_file);
        let receipts = Self::restore(&client, &journal, &file).unwrap_or_else(ReceiptState::none);
        let delivered = watch::Sender::new(receipts.count());
        Self {
            client,
            journal,
            init_data,
            file,
            session: Mutex::default(),
            delivery: Mutex::default(),
            receipts: watch::Sender::new(receipts),
            delivered,
            last_time: AtomicU64::new(0),
        }
    }

    fn restore(client: &Client, journal: &Journal, file: &ReceiptFile) -> Option<ReceiptState> {
        let compact = file.read().ok().flatten()?;
        let guest = journal.log().guest().ok()?;
        let state = client.attestor().restore(guest, &compact).ok()?;
        (state.count() <= journal.log().count()).then_some(state)
    }

    /// The session, attested now if there is none.
    async fn session(&self) -> Result<Arc<Session>, AgentError> {
        let mut known = self.session.lock().await;
        if let Some(session) = known.as_ref().filter(|session| !session.expired(Timestamp::now())) {
            return Ok(Arc::clone(session));
        }
        let tee = self.journal.log().attester().tee();
        let challenged = Arc::new(self.client.challenge(tee).await?);
        let (evidence, log) = {
            let challenged = Arc::clone(&challenged);
            self.evidence(move |log| challenged.binding(Some(log))).await?
        };
        let challenged = Arc::into_inner(challenged).ok_or_else(|| AgentError::Task("challenge kept".to_owned()))?;
        let session = Arc::new(challenged.attest(evidence, Some(log), self.init_data.clone()).await?);
        *known = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Forgets a session that has ended, unless somebody did and made another.
    async fn ended(&self, session: &Arc<Session>) {
        let mut known = self.session.lock().await;
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            *known = None;
        }
    }

    /// Asks something in the session; once more in a new one when the attestor does not know it any more.
    async fn ask<T, F>(&self, ask: impl Fn(Arc<Session>) -> F) -> Result<T, AgentError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let session = self.session().await?;
        match ask(Arc::clone(&session)).await {
            Err(error) if error.session_ended() => {
                self.ended(&session).await;
                Ok(ask(self.session().await?).await?)
            }
            other => Ok(other?),
        }
    }

    /// Evidence over what `bind` makes of the log's head.
    async fn evidence(
        &self,
        bind: impl FnOnce(&LogBinding) -> Result<Sha384Digest, ClientError> + Send + 'static,
    ) -> Result<(TeeEvidence, LogBinding), AgentError> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let evidence = self.journal.attest(move |log| match bind(log) {
            Ok(digest) => digest,
            Err(error) => {
                let _ = sender.send(error); // the evidence over the stand-in is dropped with it
                Sha384Digest::new([0; 48])
            }
        });
        let evidence = evidence.await?;
        match receiver.try_recv() {
            Ok(error) => Err(error.into()),
            Err(_) => Ok(evidence),
        }
    }

    /// The log's records from `from` on, with fresh evidence over its head.
    async fn delivery(&self, session: &Arc<Session>, from: u64) -> Result<Delivery, AgentError> {
        let bound = Arc::clone(session);
        let (evidence, log) = self.evidence(move |log| bound.binding(log)).await?;
        let waiting = log.count.saturating_sub(from);
        if waiting > MAX_RECORDS_PER_REQUEST as u64 {
            // The register has moved past every shorter prefix: no evidence can be had for one any more.
            let most = format!("at most {MAX_RECORDS_PER_REQUEST} records at once");
            return Err(Refusal::new(reason::LOG_GAP, "event log", most, waiting.to_string()).into());
        }
        let records = self.journal.records(from, log.count).await?.into_iter().map(RecordBytes).collect();
        Ok(Delivery { from, records, log, evidence })
    }

    fn receipted(&self, receipt: &VerifiedReceipt) {
        self.receipts.send_replace(ReceiptState::after(receipt));
        self.last_time.fetch_max(receipt.claims().issued_at.0, Ordering::Relaxed);
        if let Err(error) = self.file.write(receipt) {
            tracing::warn!(%error, "the receipt could not be kept for a restart");
        }
        let count = receipt.claims().count;
        self.delivered.send_if_modified(|known| std::mem::replace(known, count.max(*known)) < count);
    }

    /// Delivers what is not receipted yet; attests again once when the session has ended, and once goes back to where
    /// the attestor says its history ends.
    async fn deliver_all(&self) -> Result<(), AgentError> {
        let (mut may_attest, mut may_move) = (true, true);
        let receipts = self.receipts.borrow().clone();
        let mut from = receipts.count();
        loop {
            let session = self.session().await?;
            let delivery = self.delivery(&session, from).await?;
            match session.deliver(delivery, &receipts).await {
                Ok(receipt) => {
                    self.receipted(&receipt);
                    return Ok(());
                }
                Err(error) if error.session_ended() && may_attest => {
                    self.ended(&session).await;
                    may_attest = false;
                }
                Err(error) => match error.count() {
                    Some(count) if error.code() == reason::LOG_GAP && may_move => {
                        from = count;
                        may_move = false;
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }
}

#[async_trait]
impl RemoteAttestor for AttestorLink {
    async fn decide(&self, question: Question) -> Result<VerifiedVerdict, AgentError> {
        self.deliver(self.journal.log().count()).await?;
        let asked = &question;
        let ask = |session: Arc<Session>| {
            let receipts = self.receipts.borrow().clone();
            async move { session.decide(asked, &receipts).await }
        };
        let verdict = self.ask(ask).await?;
        self.last_time.fetch_max(verdict.claims().issued_at.0, Ordering::Relaxed);
        Ok(verdict)
    }

    async fn deliver(&self, count: u64) -> Result<(), AgentError> {
        let asked = Instant::now();
        let mut failed = self.delivery.lock().await;
        // Another launch's delivery may have carried these records too, or found that nothing can be delivered.
        if self.receipts.borrow().count() >= count {
            return Ok(());
        }
        if let Failed(Some((began, error))) = &*failed
            && *began >= asked
        {
            return Err(error.clone().into());
        }
        let began = Instant::now();
        let delivered = self.deliver_all().await;
        failed.0 = match &delivered {
            Err(AgentError::Attestor(error)) => Some((began, error.clone())),
            _ => None,
        };
        delivered
    }

    async fn golden(&self, manifest: Sha256Digest) -> Result<Option<GoldenResource>, AgentError> {
        self.ask(|session| async move { session.golden(&manifest).await }).await
    }

    async fn resource(&self, path: ResourcePath) -> Result<Zeroizing<Vec<u8>>, AgentError> {
        let path = path.as_str();
        self.ask(|session| async move { session.resource(path).await }).await
    }

    fn delivered(&self) -> watch::Receiver<u64> {
        self.delivered.subscribe()
    }

    fn last_time(&self) -> Timestamp {
        Timestamp(self.last_time.load(Ordering::Relaxed))
    }
}
