//! Handlers of containers: create, start, remove, limits, numbers, freezing.

use std::sync::Arc;
use std::time::Duration;

use protocols::rpc::kata::agent as pb;
use protocols::rpc::kata::oci;

use super::{KataAgent, spec, stats};
use crate::cgroup::Resources;
use crate::error::{AgentError, blocking};
use crate::launch::{MAX_PIDS, Source};

/// Where Kubernetes has a container write why it ended.
const TERMINATION_LOG: &str = "/dev/termination-log";

impl KataAgent {
    /// Everything of a launch but its start; the pull happens in here.
    pub(super) async fn create_container(&self, request: pb::CreateContainerRequest) -> Result<pb::Empty, AgentError> {
        let sandbox = self.sandbox.ready()?;
        let config = Arc::clone(&self.config);
        let read = move || -> Result<_, AgentError> {
            let mounted = sandbox.mount(&request.storages)?;
            let (sources, pause) = (sandbox.sources(&mounted)?, sandbox.pause());
            let launch = spec::launch_request(&request, &sandbox.view(&sources, pause.as_deref(), &config))?;
            Ok((launch, mounted, sandbox, termination_log(&request)))
        };
        let (launch, mounted, sandbox, log) = blocking(read).await??;
        let (id, pause) = (launch.id.clone(), launch.source == Source::Pause);
        let created = self.agent.create(launch).await.result;
        if let Err(error) = created {
            blocking(move || drop(mounted)).await?;
            return Err(error);
        }
        sandbox.keep(&id, mounted);
        if pause {
            sandbox.set_pause(&id);
        }
        if let Some(log) = log {
            sandbox.logs().insert(id, log);
        }
        Ok(pb::Empty::default())
    }

    pub(super) async fn start_container(&self, request: pb::StartContainerRequest) -> Result<pb::Empty, AgentError> {
        self.agent.start(&request.container_id).await?;
        Ok(pb::Empty::default())
    }

    /// A timeout of 0 waits for ever.
    pub(super) async fn remove_container(&self, request: pb::RemoveContainerRequest) -> Result<pb::Empty, AgentError> {
        let timeout = Duration::from_secs(request.timeout.into());
        self.agent.remove_container(&request.container_id, timeout).await?;
        let sandbox = self.sandbox.ready()?;
        blocking(move || sandbox.release(&request.container_id)).await?;
        Ok(pb::Empty::default())
    }

    /// Processor, memory and the number of processes; whatever else is said of a running container is left alone.
    pub(super) async fn update_container(&self, request: pb::UpdateContainerRequest) -> Result<pb::Empty, AgentError> {
        let resources = request.resources.into_option().map(limits).unwrap_or_default();
        self.agent.update(&request.container_id, resources).await?;
        Ok(pb::Empty::default())
    }

    pub(super) async fn stats_container(
        &self,
        request: pb::StatsContainerRequest,
    ) -> Result<pb::StatsContainerResponse, AgentError> {
        Ok(stats::response(self.agent.stats(&request.container_id).await?))
    }

    pub(super) async fn pause_container(&self, request: pb::PauseContainerRequest) -> Result<pb::Empty, AgentError> {
        self.agent.pause(&request.container_id).await?;
        Ok(pb::Empty::default())
    }

    pub(super) async fn resume_container(&self, request: pb::ResumeContainerRequest) -> Result<pb::Empty, AgentError> {
        self.agent.resume(&request.container_id).await?;
        Ok(pb::Empty::default())
    }
}

/// Where the container's termination log lies in the shared directory, if it was given one.
fn termination_log(request: &pb::CreateContainerRequest) -> Option<String> {
    let mounts = &request.OCI.as_ref()?.Mounts;
    mounts.iter().find(|mount| mount.destination == TERMINATION_LOG).map(|mount| mount.source.clone())
}

/// In the protocol a number that is not said is 0.
fn limits(resources: oci::LinuxResources) -> Resources {
    let memory = resources.Memory.into_option().unwrap_or_default();
    let cpu = resources.CPU.into_option().unwrap_or_default();
    let pids = resources.Pids.into_option().unwrap_or_default();
    let signed = |value: i64| (value != 0).then_some(value);
    let unsigned = |value: u64| (value != 0).then_some(value);
    Resources {
        memory_limit: signed(memory.Limit),
        memory_reservation: signed(memory.Reservation),
        memory_swap: signed(memory.Swap),
        cpu_shares: unsigned(cpu.Shares),
        cpu_quota: signed(cpu.Quota),
        cpu_period: unsigned(cpu.Period),
        cpus: cpu.Cpus,
        mems: cpu.Mems,
        // The bound of every container's measured spec is not lifted afterwards.
        pids: (pids.Limit > 0).then(|| pids.Limit.min(MAX_PIDS)),
    }
}

#[cfg(test)]
mod tests {
    use protobuf::MessageField;

    use super::*;

    #[test]
    fn an_update_takes_processor_and_memory_and_no_device() {
        let resources = oci::LinuxResources {
            Devices: vec![oci::LinuxDeviceCgroup { Access: "rwm".to_owned(), Allow: true, ..Default::default() }],
            Memory: MessageField::some(oci::LinuxMemory {
                Limit: 100_663_296,
                Swap: 100_663_296,
                ..Default::default()
            }),
            CPU: MessageField::some(oci::LinuxCPU { Quota: 80_000, Period: 100_000, ..Default::default() }),
            ..Default::default()
        };
        let expected = Resources {
            memory_limit: Some(100_663_296),
            memory_swap: Some(100_663_296),
            cpu_quota: Some(80_000),
            cpu_period: Some(100_000),
            ..Default::default()
        };
        assert_eq!(limits(resources), expected);
        assert_eq!(limits(oci::LinuxResources::default()), Resources::default());
        for (asked, taken) in [(-1, None), (100, Some(100)), (i64::MAX, Some(MAX_PIDS))] {
            let pids = MessageField::some(oci::LinuxPids { Limit: asked, ..Default::default() });
            let resources = oci::LinuxResources { Pids: pids, ..Default::default() };
            assert_eq!(limits(resources).pids, taken, "{asked}");
        }
    }
}
