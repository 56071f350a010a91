//! What an agent must not gather.

use std::fs;
use std::path::Path;

use integration_tests::World;

use crate::figures::{Bound, Figures};

/// Counts of what the agent and the machine hold.
#[derive(Debug)]
pub(crate) struct Gathered([(&'static str, usize); 6]);

impl Gathered {
    pub(crate) fn of(world: &World) -> Self {
        let process = format!("/proc/{}", world.agent.as_ref().unwrap().pid());
        let mounts = fs::read_to_string(format!("{process}/mounts")).unwrap();
        Self([
            ("descriptors", entries(&format!("{process}/fd"))),
            ("threads", entries(&format!("{process}/task"))),
            ("processes", descendants(&process)),
            ("mounts", mounts.lines().count()),
            ("control groups", folders(Path::new("/sys/fs/cgroup"))),
            ("files of commands", files(&world.path("state/bundles")) + files(&world.path("state/runtime-logs"))),
        ])
    }

    /// Figures of what there is more of.
    pub(crate) fn compare(&self, later: &Self, figures: &mut Figures) {
        for ((what, before), (_, after)) in self.0.iter().zip(&later.0) {
            let more = *after as f64 - *before as f64;
            // Threads of the pool come and go.
            let bound = (*what != "threads").then_some(Bound::Most(0.0));
            figures.put(&format!("{what} gathered by the execs, beyond {before}"), more, "", bound);
        }
    }
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).unwrap().count()
}

/// Children of all threads: containers' first processes and those executed.
fn descendants(process: &str) -> usize {
    let tasks = fs::read_dir(format!("{process}/task")).unwrap();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.flatten().map(|task| of(task).split_whitespace().count()).sum()
}

fn folders(root: &Path) -> usize {
    let below = fs::read_dir(root).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + folders(&entry.path()))
        .sum()
}

fn files(root: &Path) -> usize {
    let below = fs::read_dir(root).into_iter().flatten().flatten();
    below.map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { files(&entry.path()) } else { 1 }).sum()
}
