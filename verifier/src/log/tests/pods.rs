//! What a pod adds to a log: its pause container, images given to another agent, execs, policies, copied files.

use super::*;

#[test]
fn the_pause_container_launches_without_a_golden_value_and_only_as_recorded() {
    let state = run(pause_launch(1).into_iter().take(2)).unwrap();
    let open = &state.open()[&1];
    assert_eq!((open.stage, open.image()), (Stage::Launched, None));
    assert!(run(pause_launch(1)).unwrap().open().is_empty());
    let launched = |change: fn(&mut Launch)| {
        let mut events = pause_launch(1);
        let Some(Event::Launch(launch)) = events.get_mut(1) else { unreachable!() };
        change(launch);
        run(events).map(drop).map_err(|refusal| refusal.code)
    };
    type Case = (&'static str, fn(&mut Launch));
    let cases: [Case; 8] = [
        ("an image", |l| l.image_manifest = Some(digest("manifest"))),
        ("another root file system", |l| l.rootfs.digest = digest("other")),
        ("other arguments", |l| l.args_h = hash_list(&["/bin/sh"])),
        ("another environment", |l| l.env_h = hash_list(&["LD_PRELOAD=/x"])),
        ("another directory", |l| l.cwd_h = hash_str("/tmp")),
        ("another user", |l| l.uid = 1),
        ("another group", |l| l.gid = 1),
        ("another launch", |l| l.seq = 2),
    ];
    for (name, change) in cases {
        assert_eq!(launched(change), Err(reason::LOG_MALFORMED), "{name}");
    }
    // Pause stands in for nothing of an image's launch, and an image's records for nothing of the pause container's.
    let pause = || pause_launch(1).swap_remove(0);
    for (name, events) in [
        ("an image launch without Golden", vec![nth(IMAGE), nth(LAUNCH)]),
        ("Pause after Image", vec![nth(IMAGE), pause()]),
        ("Image after Pause", vec![pause(), nth(IMAGE)]),
        ("Golden after Pause", vec![pause(), nth(GOLDEN)]),
        ("PullImage after Pause", vec![pause(), nth(PULL)]),
        ("an image's Launch after Pause", vec![pause(), nth(LAUNCH)]),
        ("a Launch without Pause", vec![pause_launch(1).swap_remove(1)]),
    ] {
        assert_eq!(run(events).unwrap_err().code, reason::LOG_MALFORMED, "{name}");
    }
    assert!(run([pause(), failed(1)]).unwrap().open().is_empty());
}

fn provided(change: fn(&mut Provided)) -> Event {
    let Event::Launch(launch) = nth(LAUNCH) else { unreachable!() };
    let image_manifest = launch.image_manifest.unwrap();
    let Launch { seq, cid_h, rootfs, policy_h, .. } = launch;
    let mut provided = Provided { seq, cid_h, image_manifest, rootfs, policy_h };
    change(&mut provided);
    provided.into()
}

#[test]
fn an_image_is_provided_in_place_of_a_launch_and_only_the_one_that_passed() {
    let passed = || [nth(IMAGE), nth(PULL), nth(GOLDEN)];
    let with = |event| run(passed().into_iter().chain([event]));
    assert!(with(provided(|_| {})).unwrap().open().is_empty(), "it ends the launch");
    type Case = (&'static str, fn(&mut Provided));
    let cases: [Case; 4] = [
        ("another image", |p| p.image_manifest = digest("other")),
        ("another root file system", |p| p.rootfs.digest = digest("other")),
        ("another layout", |p| p.rootfs.layout = Layout::ErofsV1),
        ("another launch", |p| p.seq = 2),
    ];
    for (name, change) in cases {
        assert_eq!(with(provided(change)).unwrap_err().code, reason::LOG_MALFORMED, "{name}");
    }
    let given = || provided(|_| {});
    for (name, events) in [
        ("before its verdict", vec![nth(IMAGE), nth(PULL), given()]),
        ("after Launch", passed().into_iter().chain([nth(LAUNCH), given()]).collect()),
        ("and launched after all", passed().into_iter().chain([given(), nth(LAUNCH)]).collect()),
        ("twice", passed().into_iter().chain([given(), given()]).collect()),
        ("of the pause container", vec![pause_launch(1).swap_remove(0), given()]),
    ] {
        assert_eq!(run(events).unwrap_err().code, reason::LOG_MALFORMED, "{name}");
    }
}

#[test]
fn the_digest_of_a_pause_bundle_covers_every_field_but_the_number() {
    let Event::Pause(pause) = pause_launch(1).swap_remove(0) else { unreachable!() };
    let bundle = pause.bundle().unwrap();
    assert_eq!(Pause { seq: 9, ..pause.clone() }.bundle().unwrap(), bundle);
    let changes: [fn(&mut Pause); 7] = [
        |p| p.rootfs.digest = digest("other"),
        |p| p.rootfs.layout = Layout::ErofsV1,
        |p| p.args_h = hash_str("other"),
        |p| p.env_h = hash_str("other"),
        |p| p.cwd_h = hash_str("other"),
        |p| p.uid = 1,
        |p| p.gid = 1,
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut other = pause.clone();
        change(&mut other);
        assert_ne!(other.bundle().unwrap(), bundle, "change {place}");
    }
}

#[test]
fn an_exec_is_of_a_started_container_and_counted_in_powers_of_two() {
    for taken in 0..=EXIT {
        let expected = if taken == STARTED + 1 { "taken" } else { "log.malformed" };
        assert_eq!(after(taken, exec(1, 1)), expected, "Exec after {taken}");
    }
    for (n, expected) in [(0, "log.malformed"), (1, "taken"), (2, "taken"), (3, "log.malformed"), (1 << 52, "taken")] {
        assert_eq!(after(STARTED + 1, exec(1, n)), expected, "count {n}");
        assert_eq!(Exec::is_due(n), expected == "taken");
    }
    let Event::Exec(other) = exec(1, 1) else { unreachable!() };
    assert_eq!(after(STARTED + 1, Exec { cid_h: cid(2), ..other.clone() }.into()), "log.malformed");
    assert_eq!(after(STARTED + 1, Exec { seq: 2, ..other }.into()), "log.malformed");
    let orphaned = launch(1).into_iter().take(STARTED + 1).chain([restart(7), exec(1, 2)]);
    assert_eq!(run(orphaned).unwrap_err().code, reason::LOG_MALFORMED);
}

#[test]
fn each_policy_names_the_one_before_it() {
    let mark = |events: Vec<Event>| run(events).map(|state| state.policy()).map_err(|refusal| refusal.code.as_str());
    assert_eq!(mark(vec![]), Ok(None));
    assert_eq!(mark(vec![policy(None, "a"), policy(Some("a"), "b")]), Ok(Some(digest("b"))));
    assert_eq!(mark(vec![policy(Some("built in"), "b")]), Ok(Some(digest("b"))));
    assert_eq!(mark(vec![policy(None, "a"), policy(Some("b"), "c")]), Err("log.malformed"));
    assert_eq!(mark(vec![policy(None, "a"), policy(None, "b")]), Err("log.malformed"));
    // A restarted agent begins with its configured policy again.
    assert_eq!(mark(vec![policy(None, "a"), restart(2)]), Ok(None));
    assert_eq!(mark(vec![policy(None, "a"), restart(2), policy(None, "a")]), Ok(Some(digest("a"))));
}

#[test]
fn what_the_host_copies_has_one_form_each() {
    let text = |content: Copied| {
        let event = Event::from(CopyFile { path_h: hash_str("/p"), content, mode: 0o755, uid: -1, gid: 0 });
        let record = event.record(MR_RTMR3, HashAlg::Sha384).unwrap();
        assert_eq!(Event::of(&record, 0).unwrap(), event);
        record.content()["content"].to_string()
    };
    assert_eq!(text(Copied::Directory), r#""directory""#);
    assert_eq!(text(Copied::File(digest("x"))), format!(r#"{{"file":"{}"}}"#, digest("x")));
    assert_eq!(text(Copied::Symlink(hash_str("t"))), format!(r#"{{"symlink":"{}"}}"#, hash_str("t")));
    run([copy_file(), copy_file()]).unwrap();
}
