//! The real link.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use kbs_client::{Client, ClientError, Question, ReceiptState, Session, VerifiedReceipt, VerifiedVerdict};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::kbs::{InitData, TeeEvidence};
use protocols::reason::{self, Refusal};
use protocols::resource::ResourcePath;
use protocols::tcl::{Delivery, GoldenResource, LogBinding, MAX_RECORDS_PER_REQUEST, RecordBytes};
use protocols::time::Timestamp;
use tokio::sync::{Mutex, MutexGuard, watch};
use zeroize::Zeroizing;

use super::RemoteAttestor;
use super::memory::ReceiptFile;
use crate::error::AgentError;
use crate::journal::Journal;

/// One attested session with the attestor, made when it is needed and made anew, once, when it has ended.
#[derive(Debug)]
pub struct AttestorLink {
    client: Client,
    journal: Arc<Journal>,
    init_data: Option<InitData>,
    file: ReceiptFile,
    /// Held over a whole exchange: the attestor sees one history, in order.
    state: Mutex<State>,
    delivered: watch::Sender<u64>,
    last_time: AtomicU64,
}

#[derive(Debug)]
struct State {
    session: Option<Arc<Session>>,
    receipts: ReceiptState,
}

impl AttestorLink {
    /// A link that has not met the attestor yet. The last receipt of an earlier life is kept at `receipt_file`.
    #[must_use]
    pub fn new(client: Client, journal: Arc<Journal>, init_data: Option<InitData>, receipt_file: PathBuf) -> Self {
        let file = ReceiptFile::new(receipt_file);
        let receipts = Self::restore(&client, &journal, &file).unwrap_or_else(ReceiptState::none);
        let delivered = watch::Sender::new(receipts.count());
        let state = Mutex::new(State { session: None, receipts });
        Self { client, journal, init_data, file, state, delivered, last_time: AtomicU64::new(0) }
    }

    fn restore(client: &Client, journal: &Journal, file: &ReceiptFile) -> Option<ReceiptState> {
        let compact = file.read().ok().flatten()?;
        let guest = journal.log().guest().ok()?;
        let state = client.attestor().restore(guest, &compact).ok()?;
        (state.count() <= journal.log().count()).then_some(state)
    }

    /// The session, attested now if there is none.
    async fn session(&self, state: &mut MutexGuard<'_, State>) -> Result<Arc<Session>, AgentError> {
        if let Some(session) = state.session.as_ref().filter(|session| !session.expired(Timestamp::now())) {
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
        state.session = Some(Arc::clone(&session));
        Ok(session)
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

    fn receipted(&self, state: &mut State, receipt: &VerifiedReceipt) {
        state.receipts = ReceiptState::after(receipt);
        self.last_time.fetch_max(receipt.claims().issued_at.0, Ordering::Relaxed);
        if let Err(error) = self.file.write(receipt) {
            tracing::warn!(%error, "the receipt could not be kept for a restart");
        }
        let count = receipt.claims().count;
        self.delivered.send_if_modified(|known| std::mem::replace(known, count.max(*known)) < count);
    }

    /// Runs one exchange; attests again once when the session has ended, and once goes back to where the attestor
    /// says its history ends.
    async fn exchange(
        &self,
        state: &mut MutexGuard<'_, State>,
        question: Option<&Question>,
    ) -> Result<Option<VerifiedVerdict>, AgentError> {
        let (mut may_attest, mut may_move) = (true, true);
        let mut from = state.receipts.count();
        loop {
            let session = self.session(state).await?;
            let delivery = self.delivery(&session, from).await?;
            let answer = match question {
                Some(question) => {
                    let decided = session.decide(question, delivery, &state.receipts).await;
                    decided.map(|(verdict, receipt)| (Some(verdict), receipt))
                }
                None => session.deliver(delivery, &state.receipts).await.map(|receipt| (None, receipt)),
            };
            match answer {
                Ok((verdict, receipt)) => {
                    self.receipted(state, &receipt);
                    return Ok(verdict);
                }
                Err(error) if error.session_ended() && may_attest => {
                    state.session = None;
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
        let mut state = self.state.lock().await;
        let verdict = self.exchange(&mut state, Some(&question)).await?;
        let verdict = verdict.ok_or_else(|| AgentError::Task("a decision without a verdict".to_owned()))?;
        self.last_time.fetch_max(verdict.claims().issued_at.0, Ordering::Relaxed);
        Ok(verdict)
    }

    async fn deliver(&self, count: u64) -> Result<(), AgentError> {
        let mut state = self.state.lock().await;
        // Another launch's delivery may have carried these records too.
        if state.receipts.count() >= count {
            return Ok(());
        }
        self.exchange(&mut state, None).await.map(|_| ())
    }

    async fn golden(&self, manifest: Sha256Digest) -> Result<Option<GoldenResource>, AgentError> {
        let mut state = self.state.lock().await;
        let session = self.session(&mut state).await?;
        match session.golden(&manifest).await {
            Err(error) if error.session_ended() => {
                state.session = None;
                let session = self.session(&mut state).await?;
                Ok(session.golden(&manifest).await?)
            }
            other => Ok(other?),
        }
    }

    async fn resource(&self, path: ResourcePath) -> Result<Zeroizing<Vec<u8>>, AgentError> {
        let mut state = self.state.lock().await;
        let session = self.session(&mut state).await?;
        match session.resource(path.as_str()).await {
            Err(error) if error.session_ended() => {
                state.session = None;
                let session = self.session(&mut state).await?;
                Ok(session.resource(path.as_str()).await?)
            }
            other => Ok(other?),
        }
    }

    fn delivered(&self) -> watch::Receiver<u64> {
        self.delivered.subscribe()
    }

    fn last_time(&self) -> Timestamp {
        Timestamp(self.last_time.load(Ordering::Relaxed))
    }
}
