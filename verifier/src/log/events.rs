//! What each event may follow, and what it changes.

use protocols::digest::Sha256Digest;
use protocols::events::{
    Created, Event, Exec, Exit, ExitReason, Golden, GoldenRef, Image, Launch, Pause, Policy, Provided, PullImage,
    Restart, VerdictWord, hash_str,
};
use protocols::reason::{self, Refusal};
use protocols::tcl::Mode;

use super::{Container, LogState, MAX_OPEN, MAX_SERIES, OpenImage, OpenLaunch, Stage, Subject, malformed, refusal};

impl LogState {
    /// Applies one event, or refuses it and changes nothing.
    pub(super) fn take(&mut self, event: Event) -> Result<(), Refusal> {
        let may_follow_seal =
            matches!(event, Event::Failed(_) | Event::Exit(_) | Event::Restart(_) | Event::Seal(_) | Event::Init(_));
        if self.sealed && !may_follow_seal {
            return Err(refusal(reason::LOG_SEALED, self.count, "only ends after Seal", event.operation()));
        }
        match event {
            Event::Init(_) => Err(malformed(self.count, "Init as record 0 only", "a second Init")),
            Event::Image(image) => self.image(&image),
            Event::PullImage(pull) => self.pull_image(&pull),
            Event::Golden(golden) => self.golden(&golden),
            Event::Pause(pause) => self.pause(pause),
            Event::Provided(provided) => self.provided(&provided),
            Event::Launch(launch) => self.launch(&launch),
            Event::Created(created) => self.created(&created),
            Event::Started(started) => {
                self.at(started.seq, &[Stage::Created], "Started after Created")?.stage = Stage::Started;
                Ok(())
            }
            Event::Exec(exec) => self.exec(&exec),
            Event::CopyFile(_) => Ok(()),
            Event::Policy(policy) => self.replace_policy(&policy),
            Event::Failed(failed) => self.failed(failed.seq),
            Event::Exit(exit) => self.exit(&exit),
            Event::Restart(restart) => self.restart(&restart),
            Event::Seal(seal) => {
                self.counts("Seal", seal.n)?;
                self.sealed = true;
                Ok(())
            }
        }
    }

    /// The open launch `seq`, which must be at one of `stages`.
    fn at(&mut self, seq: u64, stages: &[Stage], expected: &str) -> Result<&mut OpenLaunch, Refusal> {
        let place = self.count;
        match self.open.get_mut(&seq) {
            Some(launch) if stages.contains(&launch.stage) => Ok(launch),
            Some(launch) => Err(malformed(place, expected, format!("launch {seq} is {:?}", launch.stage))),
            None => Err(malformed(place, expected, format!("launch {seq} is not open"))),
        }
    }

    fn unused(&self, seq: u64) -> Result<(), Refusal> {
        if self.open.contains_key(&seq) || self.ended.contains(seq) {
            return Err(malformed(self.count, "a launch number that was not used", format!("launch {seq} again")));
        }
        Ok(())
    }

    fn end(&mut self, seq: u64) {
        self.open.remove(&seq);
        self.ended.insert(seq);
    }

    fn counts(&self, event: &str, n: u64) -> Result<(), Refusal> {
        if n == self.count {
            return Ok(());
        }
        Err(malformed(self.count, format!("{event} of {} records", self.count), format!("of {n} records")))
    }

    /// Begins launch `seq`.
    fn begin(&mut self, seq: u64, launch: OpenLaunch) -> Result<(), Refusal> {
        self.unused(seq)?;
        if self.open.len() >= MAX_OPEN {
            let expected = format!("at most {MAX_OPEN} launches that have not ended");
            return Err(malformed(self.count, expected, "one more"));
        }
        self.open.insert(seq, launch);
        Ok(())
    }

    fn image(&mut self, image: &Image) -> Result<(), Refusal> {
        let subject = OpenImage { ref_h: image.ref_h, manifest: image.manifest, config: image.config, pulled: false };
        let subject = Subject::Image(subject);
        let launch = OpenLaunch { stage: Stage::Measured, subject, rootfs: image.rootfs, container: None };
        self.begin(image.seq, launch)
    }

    fn pause(&mut self, pause: Pause) -> Result<(), Refusal> {
        let (seq, rootfs) = (pause.seq, pause.rootfs);
        let launch = OpenLaunch { stage: Stage::Passed, subject: Subject::Pause(pause), rootfs, container: None };
        self.begin(seq, launch)
    }

    fn pull_image(&mut self, pull: &PullImage) -> Result<(), Refusal> {
        let ref_h = hash_str(&pull.image);
        let measured = self.open.values_mut().filter(|launch| launch.stage == Stage::Measured);
        let mut images = measured.filter_map(|launch| match &mut launch.subject {
            Subject::Image(image) => Some(image),
            Subject::Pause(_) => None,
        });
        let pulled = images.find(|image| !image.pulled && image.manifest == pull.digest && image.ref_h == ref_h);
        match pulled {
            Some(image) => {
                image.pulled = true;
                Ok(())
            }
            None => {
                let expected = "PullImage once, after the Image of its manifest and reference";
                Err(malformed(self.count, expected, pull.digest.to_string()))
            }
        }
    }

    fn golden(&mut self, golden: &Golden) -> Result<(), Refusal> {
        let place = self.count;
        let launch = self.at(golden.seq, &[Stage::Measured], "Golden after Image")?;
        if launch.image().is_none_or(|image| image.manifest != golden.manifest) {
            return Err(malformed(place, "Golden of the manifest that Image names", golden.manifest.to_string()));
        }
        let stage = match (golden.verdict, &golden.golden) {
            (VerdictWord::Refused(_), _) => Stage::Refused,
            (VerdictWord::Pass, Some(reference)) => {
                self.accept(golden.mode, reference)?;
                Stage::Passed
            }
            (VerdictWord::Pass, None) => {
                return Err(malformed(place, "a pass that names its golden value", "null"));
            }
        };
        self.at(golden.seq, &[Stage::Measured], "Golden after Image")?.stage = stage;
        Ok(())
    }

    /// Raises the high-water mark. A remote pass is the attestor's word under the attestor's own mark, and the
    /// records of concurrent launches may stand in another order than its verdicts: it is never held against
    /// this log's mark, and never lowers it.
    fn accept(&mut self, mode: Mode, reference: &GoldenRef) -> Result<(), Refusal> {
        let new = (reference.version, reference.payload);
        let known = self.accepted.len();
        let Some((version, payload)) = self.accepted.get_mut(&reference.series_h) else {
            if known >= MAX_SERIES {
                let expected = format!("at most {MAX_SERIES} series");
                return Err(malformed(self.count, expected, "one more"));
            }
            self.accepted.insert(reference.series_h, new);
            return Ok(());
        };
        if mode == Mode::Local && reference.version < *version {
            let expected = format!("version {version} or higher, as this log accepted");
            let actual = format!("a pass for version {}", reference.version);
            return Err(refusal(reason::GOLDEN_ROLLBACK, self.count, expected, actual));
        }
        if mode == Mode::Local && reference.version == *version && reference.payload != *payload {
            let expected = format!("version {version} with payload {payload}, as this log accepted");
            let actual = format!("a pass for payload {}", reference.payload);
            return Err(refusal(reason::GOLDEN_CONFLICT, self.count, expected, actual));
        }
        if reference.version > *version {
            (*version, *payload) = new;
        }
        Ok(())
    }

    fn provided(&mut self, provided: &Provided) -> Result<(), Refusal> {
        let place = self.count;
        let open = self.at(provided.seq, &[Stage::Passed], "Provided after a Golden that passed")?;
        if open.image().is_none_or(|image| image.manifest != provided.image_manifest) {
            let actual = provided.image_manifest.to_string();
            return Err(malformed(place, "Provided of the manifest that Golden names", actual));
        }
        if provided.rootfs != open.rootfs {
            let expected = format!("Provided of root file system {}", open.rootfs.digest);
            return Err(malformed(place, expected, provided.rootfs.digest.to_string()));
        }
        self.end(provided.seq);
        Ok(())
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), Refusal> {
        let place = self.count;
        let twin = self.open.values().filter_map(|open| open.container.as_ref()).any(|c| c.cid_h == launch.cid_h);
        let open = self.at(launch.seq, &[Stage::Passed], "Launch after a Golden that passed")?;
        match &open.subject {
            Subject::Image(image) if launch.image_manifest != Some(image.manifest) => {
                let actual = launch.image_manifest.map_or_else(|| "null".to_owned(), |manifest| manifest.to_string());
                return Err(malformed(place, format!("Launch of manifest {}", image.manifest), actual));
            }
            Subject::Pause(pause) if !is_of_pause(launch, pause) => {
                return Err(malformed(place, "Launch without a manifest, of the process that Pause names", "another"));
            }
            Subject::Image(_) | Subject::Pause(_) => {}
        }
        if launch.rootfs != open.rootfs {
            let expected = format!("Launch of root file system {}", open.rootfs.digest);
            return Err(malformed(place, expected, launch.rootfs.digest.to_string()));
        }
        if twin {
            return Err(malformed(place, "a container id that no open launch has", launch.cid_h.to_string()));
        }
        open.container = Some(Container { cid_h: launch.cid_h, runtime: launch.runtime });
        open.stage = Stage::Launched;
        Ok(())
    }

    fn created(&mut self, created: &Created) -> Result<(), Refusal> {
        let place = self.count;
        let open = self.at(created.seq, &[Stage::Launched], "Created after Launch")?;
        if open.container.as_ref().is_none_or(|container| container.runtime != created.runtime_h) {
            return Err(malformed(place, "Created by the runtime that Launch names", created.runtime_h.to_string()));
        }
        if created.rootfs_enforced != open.rootfs.layout {
            let expected = format!("layout {} enforced", open.rootfs.layout.as_str());
            return Err(malformed(place, expected, created.rootfs_enforced.as_str()));
        }
        open.stage = Stage::Created;
        Ok(())
    }

    fn exec(&mut self, exec: &Exec) -> Result<(), Refusal> {
        let place = self.count;
        let open = self.at(exec.seq, &[Stage::Started], "Exec between Started and Exit")?;
        if open.container.as_ref().is_none_or(|container| container.cid_h != exec.cid_h) {
            return Err(malformed(place, "Exec in the container that Launch names", exec.cid_h.to_string()));
        }
        if !Exec::is_due(exec.n) {
            return Err(malformed(place, "a count that is a power of two", exec.n.to_string()));
        }
        Ok(())
    }

    fn replace_policy(&mut self, policy: &Policy) -> Result<(), Refusal> {
        if self.policy.is_some() && self.policy != policy.old {
            let shown = |digest: Option<_>| digest.map_or_else(|| "null".to_owned(), |d: Sha256Digest| d.to_string());
            let expected = format!("Policy in place of {}", shown(self.policy));
            return Err(malformed(self.count, expected, shown(policy.old)));
        }
        self.policy = Some(policy.new);
        Ok(())
    }

    /// A launch may fail before its image is known; its number is used all the same.
    fn failed(&mut self, seq: u64) -> Result<(), Refusal> {
        match self.open.get(&seq).map(|launch| launch.stage) {
            None => self.unused(seq)?,
            Some(Stage::Started) => {
                return Err(malformed(self.count, "Failed before Started", format!("launch {seq} is Started")));
            }
            Some(_) => {}
        }
        self.end(seq);
        Ok(())
    }

    fn exit(&mut self, exit: &Exit) -> Result<(), Refusal> {
        let place = self.count;
        let Some(seq) = exit.seq else {
            // A container that a restarted agent found and ended; the log may know it by its id.
            if exit.reason != ExitReason::AgentRestart || self.restarts == 0 {
                return Err(malformed(place, "Exit with a launch number, or after Restart", "null"));
            }
            let is_it = |open: &OpenLaunch| open.container.as_ref().is_some_and(|c| c.cid_h == exit.cid_h);
            let known = self.open.iter().find(|(_, open)| is_it(open)).map(|(seq, open)| (*seq, open.stage));
            return match known {
                Some((seq, Stage::Orphaned)) => {
                    self.end(seq);
                    Ok(())
                }
                Some((seq, _)) => Err(malformed(place, "Exit with its launch number", format!("null for {seq}"))),
                None => Ok(()),
            };
        };
        let stages = [Stage::Created, Stage::Started, Stage::Orphaned];
        let open = self.at(seq, &stages, "Exit after Created or Started")?;
        if open.container.as_ref().is_none_or(|container| container.cid_h != exit.cid_h) {
            return Err(malformed(place, "Exit of the container that Launch names", exit.cid_h.to_string()));
        }
        if (exit.reason == ExitReason::AgentRestart) != (open.stage == Stage::Orphaned) {
            return Err(malformed(place, "reason agent_restart exactly after Restart", format!("{:?}", exit.reason)));
        }
        self.end(seq);
        Ok(())
    }

    fn restart(&mut self, restart: &Restart) -> Result<(), Refusal> {
        self.counts("Restart", restart.n)?;
        self.config = restart.config;
        self.agent_h = restart.agent_h;
        self.restarts += 1;
        // A restarted agent takes its policy from the beginning.
        self.policy = None;
        for launch in self.open.values_mut() {
            launch.stage = Stage::Orphaned;
        }
        Ok(())
    }
}

/// Whether the launch is of no image and runs what `pause` names. The root file system is compared for all launches.
fn is_of_pause(launch: &Launch, pause: &Pause) -> bool {
    let process = (launch.args_h, launch.env_h, launch.cwd_h, launch.uid, launch.gid);
    launch.image_manifest.is_none() && process == (pause.args_h, pause.env_h, pause.cwd_h, pause.uid, pause.gid)
}
