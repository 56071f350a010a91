//! Logs that somebody has altered, at random.

use super::*;

/// A log with everything in it: the pause container, two launches side by side, execs, files, policies, a failure, a
/// restart, an orphan, a seal.
fn rich() -> Vec<Record> {
    let mut events: Vec<Event> = vec![policy(None, "a"), copy_file()];
    let mut pause = pause_launch(6);
    let ends = pause.split_off(4);
    events.extend(pause);
    events.extend([exec(6, 1), exec(6, 2), policy(Some("a"), "b")]);
    events.extend(ends);
    for (a, b) in launch(1).into_iter().zip(launch(2)) {
        events.extend([a, b]);
    }
    events.push(failed(3));
    events.extend(launch(4).into_iter().take(EXIT));
    events.push(restart(events.len() as u64 + 1));
    events.push(Exit { seq: Some(4), cid_h: cid(4), status: None, reason: ExitReason::AgentRestart }.into());
    events.extend(launch(5));
    events.push(seal(events.len() as u64 + 1));
    records(events)
}

#[derive(Debug, Clone)]
enum Attack {
    Drop(usize),
    Repeat(usize),
    Swap(usize, usize),
    Cut(usize),
}

fn attack(len: usize) -> impl Strategy<Value = Attack> {
    (0usize..4, 0..len, 0..len).prop_filter_map("a swap of two places", |(kind, a, b)| match kind {
        0 => Some(Attack::Drop(a)),
        1 => Some(Attack::Repeat(a)),
        2 if a != b => Some(Attack::Swap(a, b)),
        2 => None,
        _ => Some(Attack::Cut(a)),
    })
}

/// What the attestor does: rules, then the comparison with the quoted register.
fn shown(records: &[Record], quoted: &RegisterValue) -> Result<(), Refusal> {
    check_log(records)?.ends_at(quoted)
}

proptest! {
    #[test]
    fn dropped_repeated_swapped_or_cut_records_are_refused(attack in attack(rich().len())) {
        let mut records = rich();
        let quoted = check_log(&records).unwrap().head();
        match attack {
            Attack::Drop(place) => drop(records.remove(place)),
            Attack::Repeat(place) => records.insert(place, records[place].clone()),
            Attack::Swap(a, b) => records.swap(a, b),
            Attack::Cut(place) => records.truncate(place),
        }
        let same = records == rich();
        prop_assert_eq!(shown(&records, &quoted).is_ok(), same);
    }

    #[test]
    fn any_flipped_bit_of_a_log_is_refused(place in 0usize..1 << 16, bit in 0u8..8) {
        let mut bytes = event_log::export(&rich());
        let quoted = check_log(&rich()).unwrap().head();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        let result = event_log::parse(&bytes).map_err(|error| error.refusal()).and_then(|r| shown(&r, &quoted));
        prop_assert!(result.is_err());
    }

    #[test]
    fn stored_and_restored_at_any_place_it_goes_on_the_same(places in prop::collection::btree_set(1usize..34, 0..4)) {
        let records = rich();
        let mut state = LogState::start(&records[0]).unwrap();
        for (place, record) in records.iter().enumerate().skip(1) {
            if places.contains(&place) {
                state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
            }
            state.push(record).unwrap();
        }
        prop_assert_eq!(state, check_log(&records).unwrap());
    }

    #[test]
    fn no_sequence_of_events_panics_or_launches_unjudged(choice in prop::collection::vec((1u64..3, 0usize..15), 0..40)) {
        let mut state = run([]).unwrap();
        for (seq, kind) in choice {
            let event = match kind {
                7 => failed(seq),
                8 => restart(state.count()),
                9 => exit(|e| (e.seq, e.cid_h, e.reason) = (None, cid(seq), ExitReason::AgentRestart)),
                10 => pause_launch(seq).swap_remove(0),
                11 => pause_launch(seq).swap_remove(1),
                12 => exec(seq, 1),
                13 => copy_file(),
                14 => policy(None, "a"),
                place => nth_of(seq, place),
            };
            let open = state.open().get(&seq);
            let passed = open.filter(|launch| launch.stage == Stage::Passed).map(|launch| launch.image().is_some());
            let started = open.is_some_and(|launch| launch.stage == Stage::Started);
            let taken = state.push(&event.record(MR_RTMR3, HashAlg::Sha384).unwrap()).is_ok();
            match event {
                Event::Launch(launch) => prop_assert_eq!(taken, passed == Some(launch.image_manifest.is_some())),
                Event::Exec(_) => prop_assert_eq!(taken, started),
                _ => {}
            }
        }
    }
}

#[test]
fn the_rules_alone_tell_most_attacks_without_a_register() {
    let records = rich();
    let dropped = (0..records.len()).filter(|place| {
        let mut without = records.clone();
        without.remove(*place);
        check_log(&without).is_err()
    });
    // The counts of Restart and Seal tell every dropped record but Seal itself.
    assert_eq!(dropped.count(), records.len() - 1);
}
