//! Every refusal, kept with its id: the host's side of a caller learns code and id, an administrator all of it.
//!
//! Those of callers who have shown evidence that holds are in the store, where the oldest make room. Those of strangers are
//! in a small ring in memory: no number of them costs disk, or room of the others.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use protocols::guest::GuestId;
use protocols::reason::{Refusal, Source};
use protocols::tcl::RefusalRecord;

use crate::admin::{Administrator, Audit};
use crate::broker::{Broker, missing};
use crate::challenge::random;
use crate::error::BrokerError;
use crate::token::Session;

/// Refusals of strangers that are kept.
const MAX_STRANGERS: usize = 128;
/// The most characters kept of what a check found: a caller writes some of them, and refusals are stored.
const MAX_FACT: usize = 2048;

/// The last refusals of callers who have shown nothing.
pub(crate) type Strangers = Mutex<VecDeque<RefusalRecord>>;

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker<'s> {
    /// Somebody who has shown nothing that holds, unless the error says that evidence was verified.
    Stranger,
    /// An attested session.
    Session(&'s Session),
}

/// A request that was not served, and the name of its record.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) error: BrokerError,
    /// 32 hex digits.
    pub(crate) id: Option<String>,
}

/// Cuts what a check found to what is kept of it.
pub(crate) fn cut(mut refusal: Refusal) -> Refusal {
    for fact in [&mut refusal.subject, &mut refusal.expected, &mut refusal.actual] {
        if let Some((end, _)) = fact.char_indices().nth(MAX_FACT) {
            fact.truncate(end);
            fact.push('…');
        }
    }
    refusal
}

impl Broker {
    /// Keeps the record of a request that was not served. `request` is its method and route, without names of resources.
    pub(crate) async fn refused(&self, error: BrokerError, asker: Asker<'_>, request: &'static str) -> Told {
        let Ok(id) = random::<16>() else { return Told { error, id: None } };
        let id = hex::encode(id);
        let guest: Option<GuestId> = match asker {
            Asker::Session(session) => session.guest,
            Asker::Stranger => None,
        };
        let record = RefusalRecord {
            id: id.clone(),
            time: self.now(),
            request: request.to_owned(),
            session: match asker {
                Asker::Session(session) => Some(session.jti.clone()),
                Asker::Stranger => None,
            },
            guest,
            observed: false,
            refusal: cut(error.refusal()),
        };
        self.keep(record, error.verified() || matches!(asker, Asker::Session(_)), &error).await;
        Told { error, id: Some(id) }
    }

    /// Keeps what policy would have refused, where it is only watched and the request was served.
    pub(crate) async fn observed(&self, refusal: Option<Refusal>, session: Option<&Session>, request: &'static str) {
        let (Some(refusal), Ok(id)) = (refusal, random::<16>()) else { return };
        let record = RefusalRecord {
            id: hex::encode(id),
            time: self.now(),
            request: request.to_owned(),
            session: session.map(|session| session.jti.clone()),
            guest: session.and_then(|session| session.guest),
            observed: true,
            refusal: cut(refusal.by(Source::Attestor)),
        };
        tracing::warn!(id = record.id, code = %record.refusal.code, "OBSERVED, and served: {}", record.refusal);
        if let Err(failed) = self.store.record_refusal(record).await {
            tracing::error!("an observed refusal was not stored: {failed}");
        }
    }

    async fn keep(&self, record: RefusalRecord, known: bool, error: &BrokerError) {
        let id = &record.id;
        match error {
            BrokerError::Store(_) | BrokerError::Internal(_) => tracing::error!(id, "{error}"),
            BrokerError::Refused { .. } | BrokerError::Body(_) => tracing::info!(id, "refused: {error}"),
        }
        // What is wrong with the store cannot be told there.
        if known && matches!(error, BrokerError::Refused { .. }) {
            match self.store.record_refusal(record.clone()).await {
                Ok(()) => return,
                Err(failed) => tracing::error!(id, "a refusal was not stored: {failed}"),
            }
        }
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() >= MAX_STRANGERS {
            strangers.pop_front();
        }
        strangers.push_back(record);
    }

    /// A refusal by its id.
    pub(crate) async fn refusal(&self, _by: &Administrator<Audit>, id: &str) -> Result<RefusalRecord, BrokerError> {
        if let Some(record) = self.store.refusal(id).await? {
            return Ok(record);
        }
        let strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.iter().find(|record| record.id == id).cloned().ok_or_else(|| missing("such refusal"))
    }
}
