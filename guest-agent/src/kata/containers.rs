//! Handlers of containers: create, start, remove, limits, numbers, freezing.

use std::time::Duration;

use protocols::rpc::kata::agent as pb;
use protocols::rpc::kata::oci;

use super::{KataAgent, stats};
use crate::cgroup::Resources;
use crate::error::{AgentError, blocking};

impl KataAgent {
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
        pids: signed(pids.Limit),
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
    }
}
