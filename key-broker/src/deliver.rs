//! Deliveries of a guest's log: checked against evidence and against what is held, made durable, receipted.

use appraisal::Appraisal;
use broker_store::{Alarm, Commit, History};
use protocols::digest::Sha256Digest;
use protocols::encoding::un_b64;
use protocols::guest::GuestId;
use protocols::jws;
use protocols::reason::{self, Refusal};
use protocols::tcl::{
    Delivery, EVENTS_TYP, EventsRequest, EventsResponse, LogBinding, RECEIPT_TYP, Receipt, ReceiptsResponse,
};
use protocols::time::Timestamp;
use verifier::{EvidenceClaims, bind_log};

use crate::broker::{ATTEMPTS, Broker, appraise, same_guest, signed};
use crate::devices::Beside;
use crate::error::BrokerError;
use crate::history::{self, Grown};
use crate::rules::Rules;
use crate::token::Session;

/// The most receipts in one answer.
const MAX_RECEIPTS: usize = 1024;

impl Broker {
    /// Answers POST `/tcl/v1/events`.
    pub(crate) async fn events(&self, session: &Session, body: &str) -> Result<EventsResponse, BrokerError> {
        let EventsRequest { nonce, delivery } = signed(EVENTS_TYP, body, session)?;
        let (receipt, appraisal) = self.deliver(session, &nonce, &delivery).await?;
        // What was held nowhere when the session was made is held now, and its evidence was this session's.
        let token =
            session.of(delivery.log.guest, &appraisal).map(|session| session.sign(&self.signing)).transpose()?;
        Ok(EventsResponse { receipt, token })
    }

    /// Takes a delivery: fresh evidence over its head, then its records against the stored history, then the appraisal
    /// policy, then a durable commit. Gives the receipt.
    async fn deliver(
        &self,
        session: &Session,
        nonce: &str,
        delivery: &Delivery,
    ) -> Result<(String, Appraisal), BrokerError> {
        let (now, rules) = (self.now(), self.rules());
        fresh(session, nonce, delivery)?;
        let data = session.runtime_data(&delivery.log);
        Beside::read(&delivery.evidence, &data)?;
        let claims = self.evidence(&rules, session.tee, &delivery.evidence, &data, now).await?;
        for _ in 0..ATTEMPTS {
            let (grown, held) = self.grow(&rules, session, &claims, delivery, now).await?;
            let (appraisal, observed) = appraise(&rules, session.tee, &claims, Some(grown.state.init()))?;
            let pause = unlisted_pause(&rules, &grown.pauses);
            if let Some(receipt) = self.commit(nonce, grown, held, &delivery.log, now).await? {
                for refusal in [observed, pause] {
                    self.observed(refusal, Some(session), "POST /tcl/v1/events").await;
                }
                return Ok((receipt, appraisal));
            }
        }
        Err(BrokerError::Internal("a history that changes under every request"))
    }

    /// Checks a delivery's records against the history that is held: what it grows to, and what is held.
    async fn grow(
        &self,
        rules: &Rules,
        session: &Session,
        claims: &EvidenceClaims,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Result<(Grown, Option<History>), BrokerError> {
        let guest = delivery.log.guest;
        let held = self.store.history(guest).await?;
        let count = held.as_ref().map_or(0, |held| held.state.count());
        if let Some(held) = &held {
            same_guest(claims, &held.state, guest)?;
        }
        let (from, repeated) = history::overlap(delivery, count);
        let repeated = self.store.records(guest, from, repeated).await?;
        let grown = match history::grow(held.as_ref().map(|held| held.state.clone()), &repeated, delivery) {
            Ok(grown) => grown,
            Err(misfit) => {
                if misfit.alarm && !self.may_be_late(session, &misfit.refusal, held.as_ref()) {
                    self.alarm(&misfit.refusal, &delivery.log, count, now).await?;
                }
                return Err(BrokerError::from(misfit.refusal).holding(count));
            }
        };
        bind_log(claims, &grown.state, &delivery.log, rules.judge.policy())?;
        if let Some(refusal) = self.never_passed(guest, &grown.passes).await? {
            self.alarm(&refusal, &delivery.log, count, now).await?;
            return Err(BrokerError::from(refusal).holding(count));
        }
        if let Some(refusal) = unlisted_pause(rules, &grown.pauses).filter(|_| !rules.settings.observe) {
            return Err(BrokerError::from(refusal).holding(count));
        }
        Ok((grown, held))
    }

    /// Whether a shorter history may be a delivery that was on its way when a longer one was committed: its evidence is over
    /// this session's nonce, which was given out before. Evidence over a nonce of later shows a register that went back.
    fn may_be_late(&self, session: &Session, refusal: &Refusal, held: Option<&History>) -> bool {
        let receipt = held.and_then(|held| jws::verify::<Receipt>(RECEIPT_TYP, &held.receipt, self.key()).ok());
        refusal.code == reason::LOG_REGRESS && receipt.is_some_and(|receipt| session.issued_at() <= receipt.issued_at)
    }

    /// Commits what is new and gives the receipt; `None` when another request came first.
    async fn commit(
        &self,
        nonce: &str,
        grown: Grown,
        held: Option<History>,
        log: &LogBinding,
        now: Timestamp,
    ) -> Result<Option<String>, BrokerError> {
        let Grown { held: count, state, new, passes: _, pauses: _ } = grown;
        let previous = match held {
            Some(held) if new.is_empty() => return Ok(Some(held.receipt)),
            Some(held) => Some(Sha256Digest::of(held.receipt.as_bytes())),
            None => None,
        };
        let receipt = Receipt {
            nonce: nonce.to_owned(),
            guest: log.guest,
            count: state.count(),
            head: state.head(),
            previous,
            issued_at: now,
        };
        let receipt = self.sign(RECEIPT_TYP, &receipt)?;
        let history = History { state, receipt: receipt.clone() };
        Ok(match self.store.append(log.guest, count, new, history).await? {
            Commit::Done => Some(receipt),
            Commit::Raced => None,
        })
    }

    /// A pass that the log ascribes to this attestor and that it never gave.
    async fn never_passed(
        &self,
        guest: GuestId,
        passes: &[(u64, Sha256Digest)],
    ) -> Result<Option<Refusal>, BrokerError> {
        for (seq, golden) in passes {
            if !self.store.passed(guest, *seq, *golden).await? {
                let (subject, expected) = (format!("launch {seq}"), "a pass that this attestor gave");
                return Ok(Some(Refusal::new(reason::ATTESTOR_VERDICT, subject, expected, golden.to_string())));
            }
        }
        Ok(None)
    }

    async fn alarm(&self, refusal: &Refusal, log: &LogBinding, held: u64, now: Timestamp) -> Result<(), BrokerError> {
        tracing::warn!(guest = %log.guest, code = %refusal.code, count = log.count, head = %log.head, held, "ALARM: {refusal}");
        let alarm = Alarm { guest: log.guest, code: refusal.code, count: log.count, head: log.head, held, time: now };
        Ok(self.store.raise_alarm(alarm).await?)
    }

    /// A guest's receipts for more than `after` records.
    pub(crate) async fn receipts(&self, session: &Session, after: u64) -> Result<ReceiptsResponse, BrokerError> {
        let guest = self.guest(session)?;
        Ok(ReceiptsResponse { receipts: self.store.receipts_after(guest, after, MAX_RECEIPTS).await? })
    }
}

/// Checks that a delivery is the session's guest's.
fn fresh(session: &Session, nonce: &str, delivery: &Delivery) -> Result<(), BrokerError> {
    if un_b64(nonce).map_or(true, |nonce| nonce.len() != 32) {
        return Err(BrokerError::refused(reason::ATTESTOR_PROTOCOL, "nonce", "32 bytes of base64", "something else"));
    }
    let guest = delivery.log.guest;
    let attested = session.log.as_ref().map(|log| log.guest);
    if attested != Some(guest) {
        let actual = attested.map_or_else(|| "a session without a log".to_owned(), |guest| guest.to_string());
        return Err(BrokerError::refused(reason::EVIDENCE_GUEST, "delivery", guest.to_string(), actual));
    }
    Ok(())
}

/// A bundle that runs without a golden value and that policy does not list.
fn unlisted_pause(rules: &Rules, pauses: &[(u64, Sha256Digest)]) -> Option<Refusal> {
    let listed = rules.settings.pause.as_ref()?;
    let (seq, bundle) = pauses.iter().find(|(_, bundle)| !listed.contains(bundle))?;
    let subject = format!("launch {seq}");
    Some(Refusal::new(reason::POLICY_PAUSE, subject, "a pause bundle that policy lists", bundle.to_string()))
}
