//! Whole local launches in one process: a registry in memory, a TPM simulator, the real runc, no attestor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::registry::REFERENCE;
use common::scene::{Scene, Wanted, with_agent};
use common::{PATIENCE, runc};
use guest_agent::containers::OutputStream;
use guest_agent::error::AgentError;
use guest_agent::launch::{Asked, LaunchRequest};
use protocols::events::{Event, ExitReason, VerdictWord, hash_list, hash_str};
use protocols::golden::ProcessPolicy;
use protocols::image::Layout;
use protocols::reason;

#[test]
fn the_same_image_and_golden_value_are_launched_in_the_other_layout_where_that_is_configured() {
    with_agent(Wanted { script: "echo ran", layout: "tree-v1", ..Default::default() }, async |scene: Scene| {
        scene.launch(Scene::request("one")).await.unwrap();
        assert_eq!(scene.agent.wait("one").await.unwrap(), 0);
        let events = scene.events().await;
        let enforced = events.iter().find_map(|event| match event {
            Event::Created(created) => Some(created.rootfs_enforced),
            _ => None,
        });
        assert_eq!(enforced, Some(Layout::TreeV1));
        scene.agent.remove("one").unwrap();
        scene.nothing_left("one");
    });
}

#[test]
fn an_accepted_launch_is_recorded_step_by_step() {
    with_agent(Wanted { script: "echo $BASE; exit 4", ..Default::default() }, async |scene: Scene| {
        scene.launch(Scene::request("one")).await.unwrap();
        assert_eq!(scene.text("one").await, "image\n");
        // Several may wait, again and again: the entry was asked to be kept.
        let (first, second) = tokio::join!(scene.agent.wait("one"), scene.agent.wait("one"));
        assert_eq!((first.unwrap(), second.unwrap()), (4, 4));
        let events = scene.events().await;
        let [
            Event::Init(_),
            Event::Image(image),
            Event::PullImage(pulled),
            Event::Golden(golden),
            Event::Launch(launch),
            Event::Created(created),
            Event::Started(_),
            Event::Exit(exit),
        ] = events.as_slice()
        else {
            panic!("{events:?}");
        };
        assert_eq!(pulled.image, REFERENCE);
        assert_eq!((image.ref_h, golden.verdict), (hash_str(REFERENCE), VerdictWord::Pass));
        assert_eq!(launch.image_manifest, Some(image.manifest));
        assert_eq!(launch.args_h, hash_list(&["/bin/sh", "-c", "echo $BASE; exit 4"]));
        assert_eq!(launch.env_h, hash_list(&["PATH=/bin", "BASE=image"]));
        assert_eq!((launch.uid, launch.gid, launch.cwd_h), (0, 0, hash_str("/")));
        assert_eq!((launch.rootfs, created.rootfs_enforced), (image.rootfs, Layout::ErofsV1));
        assert_eq!(created.runtime_h, launch.runtime);
        assert_eq!(created.runtime_h, guest_agent::journal::hash_file(&runc()).unwrap());
        assert_eq!((exit.status, exit.reason), (Some(4), ExitReason::Exited));
        let taken = scene.launch(Scene::request("one")).await.unwrap_err();
        assert_eq!(taken.code(), reason::RUNTIME_CONTAINER);
        scene.agent.remove("one").unwrap();
        scene.nothing_left("one");
        // The id is free again, and the next launch has the next number.
        scene.launch(Scene::request("one")).await.unwrap();
        scene.agent.wait("one").await.unwrap();
        assert!(matches!(scene.events().await.get(8), Some(Event::Image(next)) if next.seq == image.seq + 1));
    });
}

#[test]
fn a_launch_goes_on_when_its_caller_is_gone() {
    let delay = Duration::from_millis(300);
    with_agent(Wanted { script: "echo alive", delay, ..Default::default() }, async |scene: Scene| {
        let launch = scene.agent.launch(Scene::request("left"));
        assert!(tokio::time::timeout(Duration::from_millis(50), launch).await.is_err(), "the caller is gone first");
        assert_eq!(scene.text("left").await, "alive\n");
        assert_eq!(scene.agent.wait("left").await.unwrap(), 0);
        assert!(scene.operations().await.ends_with(&["Started", "Exit"]));
    });
}

#[test]
fn a_bundle_that_cannot_be_is_recorded_and_leaves_nothing() {
    let process = ProcessPolicy { user: vec!["nobody-here".to_owned()], ..Default::default() };
    with_agent(Wanted { script: "true", process: Some(process), ..Default::default() }, async |scene: Scene| {
        let process = Asked { user: "nobody-here".to_owned(), ..Default::default() };
        let error = scene.launch(LaunchRequest { process, ..Scene::request("nobody") }).await.unwrap_err();
        assert_eq!(error.code(), reason::RUNTIME_BUNDLE);
        assert!(error.to_string().contains("nobody-here"), "{error}");
        assert_eq!(scene.operations().await, ["Init", "Image", "PullImage", "Golden", "Failed"]);
        scene.nothing_left("nobody");
    });
}

#[test]
fn a_runtime_that_changes_the_configuration_is_caught_before_anything_runs() {
    let changing = ("create", "sed -i 's/BASE=image/BASE=other/' config.json\n$RUNC \"$@\" || exit 1\nexit 0");
    with_agent(
        Wanted { script: "touch /ran; sleep 60", runtime: Some(changing), ..Default::default() },
        async |scene: Scene| {
            let error = scene.launch(Scene::request("changed")).await.unwrap_err();
            assert!(matches!(error, AgentError::Config { .. }), "{error:?}");
            assert_eq!(scene.operations().await, ["Init", "Image", "PullImage", "Golden", "Launch", "Failed"]);
            scene.nothing_left("changed");
        },
    );
}

#[test]
fn a_runtime_that_cannot_start_leaves_no_created_container() {
    let failing = ("start", "echo '{\"level\":\"error\",\"msg\":\"no start today\"}' > \"$4\"\nexit 1");
    with_agent(Wanted { script: "sleep 60", runtime: Some(failing), ..Default::default() }, async |scene: Scene| {
        let error = scene.launch(Scene::request("stuck")).await.unwrap_err();
        assert_eq!(error.code(), reason::RUNTIME_START);
        assert!(error.to_string().contains("no start today"), "{error}");
        assert!(scene.operations().await.ends_with(&["Created", "Failed"]));
        scene.nothing_left("stuck");
    });
}

#[test]
fn a_process_that_ran_is_recorded_as_ended_even_if_its_start_is_not() {
    // From the start on, no record can be written: its write-ahead record cannot replace a directory.
    let starting = ("start", "$RUNC \"$@\" || exit 1\nmkdir \"$2/../wal\"\nexit 0");
    with_agent(Wanted { script: "sleep 60", runtime: Some(starting), ..Default::default() }, async |scene: Scene| {
        let error = scene.launch(Scene::request("ran")).await.unwrap_err();
        assert_eq!(error.code(), reason::LOG_WRITE);
        assert!(scene.operations().await.ends_with(&["Launch", "Created"]));
        scene.nothing_left("ran");
        // The log holds it open: a second container of this id would break the log's rules.
        let taken = scene.launch(Scene::request("ran")).await.unwrap_err();
        assert_eq!(taken.code(), reason::RUNTIME_CONTAINER);
        std::fs::remove_dir(scene.world.path("state/wal")).unwrap();
        scene.recorded("Exit").await;
        let events = scene.events().await;
        let [.., Event::Created(_), Event::Exit(exit)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((exit.status, exit.reason), (Some(137), ExitReason::Stopped));
    });
}

#[test]
fn an_exit_that_cannot_be_recorded_is_recorded_later_and_keeps_its_id_until_then() {
    with_agent(Wanted { script: "exec sleep 600", ..Default::default() }, async |scene: Scene| {
        scene.launch(Scene::request("held")).await.unwrap();
        std::fs::create_dir(scene.world.path("state/wal")).unwrap();
        scene.agent.stop("held", 9, 0).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(500), scene.agent.wait("held")).await;
        assert!(early.is_err(), "an end that the log does not hold is not told");
        assert!(scene.agent.remove("held").is_err());
        assert_eq!(scene.launch(Scene::request("held")).await.unwrap_err().code(), reason::RUNTIME_CONTAINER);
        assert!(scene.operations().await.ends_with(&["Started"]));
        std::fs::remove_dir(scene.world.path("state/wal")).unwrap();
        assert_eq!(scene.agent.wait("held").await.unwrap(), 137);
        assert!(scene.operations().await.ends_with(&["Started", "Exit"]));
        scene.agent.remove("held").unwrap();
        scene.nothing_left("held");
    });
}

#[test]
fn a_full_queue_refuses_before_anything_is_fetched() {
    with_agent(Wanted { script: "true", ..Default::default() }, async |scene: Scene| {
        let mut refused = None;
        for id in ["a", "b", "c"] {
            match scene.launch(Scene::request(id)).await {
                Ok(()) => assert_eq!(scene.agent.wait(id).await.unwrap(), 0),
                Err(error) => refused = Some((id, error.code())),
            }
        }
        // 16 records may wait: Init, and seven of each of two launches.
        assert_eq!(refused, Some(("c", reason::LOG_QUEUE_FULL)));
        assert_eq!(scene.operations().await.len(), 15);
        // Remote launches wait for their receipt instead: they never queue, and the attestor is out of reach.
        let remote = LaunchRequest { mode: "remote".to_owned(), ..Scene::request("d") };
        assert_eq!(scene.launch(remote).await.unwrap_err().code(), reason::ATTESTOR_UNAVAILABLE);
        scene.nothing_left("d");
    });
}

#[test]
fn a_drained_agent_has_stopped_and_recorded_everything() {
    with_agent(Wanted { script: "echo up; exec sleep 600", ..Default::default() }, async |scene: Scene| {
        scene.launch(Scene::request("runs")).await.unwrap();
        assert_eq!(scene.agent.read("runs", OutputStream::Stdout, 10).await.unwrap(), b"up\n");
        let stopper = Arc::clone(&scene.agent);
        let stopped = tokio::spawn(async move { stopper.stop("runs", 0, 1).await });
        assert_eq!(scene.agent.wait("runs").await.unwrap(), 137);
        stopped.await.unwrap().unwrap();
        scene.agent.drain("shutdown").await;
        let events = scene.events().await;
        let [.., Event::Exit(exit), Event::Seal(seal)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((exit.status, exit.reason), (Some(137), ExitReason::Stopped));
        assert_eq!((seal.reason.as_str(), seal.n), ("shutdown", 8));
        assert_eq!(scene.launch(Scene::request("late")).await.unwrap_err().code(), reason::LOG_SEALED);
        scene.agent.remove("runs").unwrap();
        scene.nothing_left("runs");
    });
}

#[test]
fn a_created_container_runs_nothing_before_its_start() {
    with_agent(Wanted { script: "echo up; exec sleep 600", ..Default::default() }, async |scene: Scene| {
        scene.agent.create(Scene::request("held")).await.result.unwrap();
        assert_eq!(scene.operations().await.last(), Some(&"Created"));
        let early = scene.agent.read("held", OutputStream::Stdout, 10);
        assert!(tokio::time::timeout(Duration::from_millis(300), early).await.is_err(), "nothing was written yet");
        assert!(scene.agent.remove("held").is_err(), "it has not ended");
        scene.agent.start("held").await.unwrap();
        assert_eq!(scene.agent.read("held", OutputStream::Stdout, 10).await.unwrap(), b"up\n");
        assert_eq!(scene.operations().await.last(), Some(&"Started"));
        assert_eq!(scene.agent.start("held").await.unwrap_err().code(), reason::RUNTIME_CONTAINER);
        scene.agent.remove_container("held", PATIENCE).await.unwrap();
        let events = scene.events().await;
        let [.., Event::Started(_), Event::Exit(exit)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((exit.status, exit.reason), (Some(137), ExitReason::Stopped));
        scene.nothing_left("held");
        assert!(scene.agent.remove_container("held", PATIENCE).await.is_err(), "it is not known any more");
    });
}

#[test]
fn a_created_container_that_is_killed_has_an_end_and_leaves_nothing() {
    with_agent(Wanted { script: "touch /ran", ..Default::default() }, async |scene: Scene| {
        for removed in [false, true] {
            scene.agent.create(Scene::request("never")).await.result.unwrap();
            if removed {
                scene.agent.remove_container("never", Duration::ZERO).await.unwrap();
            } else {
                scene.agent.stop("never", 0, 1).await.unwrap();
                assert_eq!(scene.agent.wait("never").await.unwrap(), 137);
                let late = scene.agent.start("never").await.unwrap_err();
                assert_eq!(late.code(), reason::RUNTIME_CONTAINER);
                scene.agent.remove("never").unwrap();
            }
            let events = scene.events().await;
            let [.., Event::Created(_), Event::Exit(exit)] = events.as_slice() else { panic!("{events:?}") };
            assert_eq!((exit.status, exit.reason), (Some(137), ExitReason::Stopped));
            scene.nothing_left("never");
        }
    });
}

#[test]
fn a_start_that_fails_leaves_an_entry_to_remove_and_nothing_else() {
    let failing = ("start", "echo '{\"level\":\"error\",\"msg\":\"no start today\"}' > \"$4\"\nexit 1");
    with_agent(Wanted { script: "sleep 60", runtime: Some(failing), ..Default::default() }, async |scene: Scene| {
        scene.agent.create(Scene::request("stuck")).await.result.unwrap();
        assert_eq!(scene.agent.start("stuck").await.unwrap_err().code(), reason::RUNTIME_START);
        assert!(scene.operations().await.ends_with(&["Created", "Failed"]));
        assert!(scene.agent.wait("stuck").await.is_err(), "it never ran");
        scene.agent.remove_container("stuck", PATIENCE).await.unwrap();
        scene.nothing_left("stuck");
    });
}

#[test]
fn a_drained_agent_ends_what_waits_for_its_start() {
    with_agent(Wanted { script: "true", ..Default::default() }, async |scene: Scene| {
        scene.agent.create(Scene::request("held")).await.result.unwrap();
        scene.agent.drain("shutdown").await;
        assert!(scene.operations().await.ends_with(&["Created", "Exit", "Seal"]));
        assert_eq!(scene.agent.create(Scene::request("late")).await.result.unwrap_err().code(), reason::LOG_SEALED);
        scene.agent.remove("held").unwrap();
        scene.nothing_left("held");
    });
}
