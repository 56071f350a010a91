//! Whether there is room for one more launch and for the ends of all that go on, judged before anything is recorded.

use attester::AttesterError;
use protocols::event_log::MAX_RECORDS;
use protocols::events::hash_str;
use protocols::tcl::MAX_RECORDS_PER_REQUEST;
use verifier::log::OpenLaunch;

use super::Pipeline;
use crate::config::Receipts;
use crate::container_id::ContainerId;
use crate::containers::State;
use crate::error::AgentError;

/// Records that one launch may still add to the log, its end included.
const RECORDS_PER_LAUNCH: u64 = 8;
/// Records that one delivery carries beyond those of launches: restarts, `Seal`, what an earlier agent left.
const SPARE: u64 = 24;
/// The most undelivered records of launches. More than one delivery carries could never be delivered again: the
/// register has moved past every shorter prefix.
const MAX_UNDELIVERED: u64 = MAX_RECORDS_PER_REQUEST as u64 - SPARE;
/// Places that launches leave free at the end of the log: for the ends of those that go on, and for restarts.
const RESERVED: u64 = 2 * MAX_RECORDS_PER_REQUEST as u64;

// So the bound on undelivered records bounds open launches too, before any verifier does.
const _: () = assert!(MAX_RECORDS_PER_REQUEST <= verifier::log::MAX_OPEN);

/// What the log holds and what may still come.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// Records in the log.
    count: u64,
    /// Records with the attestor.
    delivered: u64,
    /// Launches that go on.
    launching: u64,
    /// Records still due from launches that are created: the start of those that wait for it, the end of all.
    ending: u64,
}

impl Load {
    fn admits(&self, receipts: Receipts) -> Result<(), AgentError> {
        if (MAX_RECORDS as u64).saturating_sub(self.count) < RESERVED {
            return Err(AttesterError::Full.into());
        }
        let limit = match receipts {
            Receipts::Wait => MAX_UNDELIVERED,
            Receipts::Queue(limit) => limit.min(MAX_UNDELIVERED),
        };
        let waiting = self.count.saturating_sub(self.delivered);
        let launching = RECORDS_PER_LAUNCH.saturating_mul(self.launching.saturating_add(1));
        let expected = launching.saturating_add(self.ending);
        if waiting.saturating_add(expected) > limit {
            return Err(AgentError::QueueFull { waiting, limit });
        }
        Ok(())
    }
}

impl Pipeline {
    /// Refuses a launch whose records would not fit, and one whose id the log holds open although its entry is gone.
    /// Hold `admission` until it has its own entry.
    pub(super) async fn admit(&self, id: &ContainerId, receipts: Receipts) -> Result<(), AgentError> {
        let cid_h = hash_str(id.as_str());
        let open = self.journal.rules(move |state| {
            let same_id = |open: &OpenLaunch| open.container.as_ref().is_some_and(|known| known.cid_h == cid_h);
            state.open().iter().map(|(seq, open)| (*seq, same_id(open))).collect::<Vec<_>>()
        });
        let mut open = open.await?;
        let (mut launching, mut ending) = (0, 0);
        for container in self.containers.all() {
            match container.state() {
                State::Launching(_) => launching += 1,
                // `Started` and its end.
                State::Created => ending += 2,
                State::Running => ending += 1,
                State::Ended(_) | State::Refused => continue,
            }
            open.retain(|(seq, _)| *seq != container.seq);
        }
        if open.iter().any(|(_, same_id)| *same_id) {
            return Err(AgentError::Container {
                id: id.to_string(),
                what: "the end of the last one is not recorded yet",
            });
        }
        let load = Load {
            count: self.journal.log().count(),
            delivered: *self.attestor.delivered().borrow(),
            launching,
            ending: ending + open.len() as u64,
        };
        load.admits(receipts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::reason::{self, Code};

    fn admits(load: Load, receipts: Receipts) -> Result<(), Code> {
        load.admits(receipts).map_err(|error| error.code())
    }

    #[test]
    fn no_launch_is_begun_whose_records_one_delivery_could_not_carry() {
        for receipts in [Receipts::Wait, Receipts::Queue(5000)] {
            let load = Load { count: 3992, delivered: 3000, ..Load::default() };
            assert_eq!(admits(load, receipts), Ok(()));
            for over in [
                Load { count: 3993, ..load },
                Load { delivered: 2999, ..load },
                Load { launching: 1, ..load },
                Load { ending: 1, ..load },
            ] {
                assert_eq!(admits(over, receipts), Err(reason::LOG_QUEUE_FULL), "{over:?}");
            }
        }
        let few = Load { count: 8, ..Load::default() };
        assert_eq!(admits(few, Receipts::Queue(16)), Ok(()));
        assert_eq!(admits(Load { ending: 1, ..few }, Receipts::Queue(16)), Err(reason::LOG_QUEUE_FULL));
    }

    #[test]
    fn launches_leave_room_in_the_log_for_ends_and_restarts() {
        let last = Load { count: 63_488, delivered: 63_488, ..Load::default() };
        assert_eq!(admits(last, Receipts::Wait), Ok(()));
        let over = Load { count: 63_489, delivered: 63_489, ..last };
        assert_eq!(admits(over, Receipts::Wait), Err(reason::LOG_FULL));
    }

    #[test]
    fn launches_that_have_not_ended_stay_below_what_a_verifier_follows() {
        let most = Load { ending: 992, ..Load::default() };
        assert_eq!(admits(most, Receipts::Wait), Ok(()));
        assert_eq!(admits(Load { ending: 993, ..most }, Receipts::Wait), Err(reason::LOG_QUEUE_FULL));
    }
}
