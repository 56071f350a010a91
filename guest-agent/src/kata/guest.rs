//! Handlers about the guest itself.

use protobuf::MessageField;
use protocols::rpc::kata::csi::volume_usage::Unit;
use protocols::rpc::kata::{agent as pb, csi};
use sandbox::guest::{Guest, Usage, volume_stats};
use sandbox::{Iptables, metrics};

use super::KataAgent;
use super::spec::GUEST_PULL;
use crate::error::{AgentError, blocking};

impl KataAgent {
    /// There is no shared file system that could have gone stale.
    pub(super) async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: pb::RemoveStaleVirtiofsShareMountsRequest,
    ) -> Result<pb::Empty, AgentError> {
        Ok(pb::Empty::default())
    }

    /// What the host may plan with. A guest without hot-plugged memory says 0.
    pub(super) async fn get_guest_details(
        &self,
        request: pb::GuestDetailsRequest,
    ) -> Result<pb::GuestDetailsResponse, AgentError> {
        let guest = Guest::new(&self.roots);
        let block = if request.mem_block_size { guest.memory_block_bytes()? } else { 0 };
        let drivers = self.storage_config.permitted.iter().map(|driver| driver.as_str());
        let agent = pb::AgentDetails {
            version: crate::VERSION.to_owned(),
            init_daemon: std::process::id() == 1,
            storage_handlers: drivers.chain([GUEST_PULL]).map(str::to_owned).collect(),
            // The profile is always the agent's own: what a host sends is not taken.
            supports_seccomp: false,
            ..Default::default()
        };
        Ok(pb::GuestDetailsResponse {
            mem_block_size_bytes: block,
            agent_details: MessageField::some(agent),
            support_mem_hotplug_probe: request.mem_hotplug_probe && guest.probes_memory(),
            ..Default::default()
        })
    }

    pub(super) async fn get_metrics(&self, _: pb::GetMetricsRequest) -> Result<pb::Metrics, AgentError> {
        let proc = self.roots.proc.clone();
        let metrics = blocking(move || metrics(&proc)).await?;
        Ok(pb::Metrics { metrics, ..Default::default() })
    }

    /// Brings processors and memory online that the host has plugged in.
    pub(super) async fn online_cpu_mem(&self, request: pb::OnlineCPUMemRequest) -> Result<pb::Empty, AgentError> {
        let guest = Guest::new(&self.roots);
        blocking(move || guest.online(request.nb_cpus, !request.cpu_only, request.wait)).await??;
        Ok(pb::Empty::default())
    }

    pub(super) async fn mem_hotplug_by_probe(
        &self,
        request: pb::MemHotplugByProbeRequest,
    ) -> Result<pb::Empty, AgentError> {
        let guest = Guest::new(&self.roots);
        blocking(move || guest.probe_memory(&request.memHotplugProbeAddr)).await??;
        Ok(pb::Empty::default())
    }

    /// Mixes the host's bytes in; they are counted as no entropy.
    pub(super) async fn reseed_random_dev(&self, request: pb::ReseedRandomDevRequest) -> Result<pb::Empty, AgentError> {
        let guest = Guest::new(&self.roots);
        blocking(move || guest.reseed(&request.data)).await??;
        Ok(pb::Empty::default())
    }

    pub(super) async fn set_guest_date_time(
        &self,
        request: pb::SetGuestDateTimeRequest,
    ) -> Result<pb::Empty, AgentError> {
        let guest = Guest::new(&self.roots);
        blocking(move || guest.set_time(request.Sec, request.Usec)).await??;
        Ok(pb::Empty::default())
    }

    pub(super) async fn get_ip_tables(
        &self,
        request: pb::GetIPTablesRequest,
    ) -> Result<pb::GetIPTablesResponse, AgentError> {
        let data = blocking(move || Iptables::default().get(request.is_ipv6)).await??;
        Ok(pb::GetIPTablesResponse { data, ..Default::default() })
    }

    pub(super) async fn set_ip_tables(
        &self,
        request: pb::SetIPTablesRequest,
    ) -> Result<pb::SetIPTablesResponse, AgentError> {
        let data = blocking(move || Iptables::default().set(request.is_ipv6, &request.data)).await??;
        Ok(pb::SetIPTablesResponse { data, ..Default::default() })
    }

    /// Numbers of a volume of the sandbox: a storage, or what was copied in.
    pub(super) async fn get_volume_stats(
        &self,
        request: pb::VolumeStatsRequest,
    ) -> Result<csi::VolumeStatsResponse, AgentError> {
        let sandbox = self.sandbox.ready()?;
        let stats = move || -> Result<_, AgentError> {
            let path = &request.volume_guest_path;
            let opened = sandbox.storages.open(path).or_else(|_| sandbox.shared.open(path))?;
            Ok(volume_stats(opened)?)
        };
        let stats = blocking(stats).await??;
        let usage = |usage: Usage, unit: Unit| csi::VolumeUsage {
            available: usage.available,
            total: usage.total,
            used: usage.used,
            unit: unit.into(),
            ..Default::default()
        };
        Ok(csi::VolumeStatsResponse {
            usage: vec![usage(stats.bytes, Unit::BYTES), usage(stats.inodes, Unit::INODES)],
            volume_condition: MessageField::some(csi::VolumeCondition::default()),
            ..Default::default()
        })
    }
}
