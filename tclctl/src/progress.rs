//! The launch's progress on a terminal, polled from the agent.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use protocols::rpc::launch as rpc;
use tokio::task::JoinHandle;

use crate::agent::{Agent, soon};

/// A bar that follows one launch; gone without a trace when dropped. None where nobody looks.
pub(crate) struct Progress {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Progress {
    /// Follows `container` if standard error is a terminal.
    pub(crate) fn follow(agent: &Agent, container: &str) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::new_spinner();
        let style = "{spinner} {msg:<12} {wide_bar} {bytes}/{total_bytes} {prefix}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let (agent, container, shown) = (agent.clone(), container.to_owned(), bar.clone());
        let task = tokio::spawn(async move {
            loop {
                let request = rpc::ProgressRequest { container_id: container.clone(), ..Default::default() };
                if let Ok(now) = agent.client().progress(soon(), &request).await {
                    shown.set_length(now.bytes_total);
                    shown.set_position(now.bytes_done);
                    shown.set_message(word(&now.stage));
                    if now.layers_total > 0 {
                        shown.set_prefix(format!("layer {} of {}", now.layers_done, now.layers_total));
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Some(Self { bar, task })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// What people call the stage.
fn word(stage: &str) -> &'static str {
    match stage {
        "fetch" => "resolving",
        "pull" => "pulling",
        "golden" => "golden value",
        "appraise" => "appraising",
        "measure" => "measuring",
        "create" => "creating",
        "running" => "running",
        _ => "",
    }
}
