//! What a container uses, in the form of the protocol.

use std::collections::HashMap;

use protobuf::MessageField;
use protocols::rpc::kata::agent as pb;

use crate::cgroup::{HugePages, Io, IoEntry, Memory, Stats, Usage};

pub(super) fn response(stats: Stats) -> pb::StatsContainerResponse {
    let Stats { cpu, memory, pids, io, huge_pages } = stats;
    let usage = pb::CpuUsage {
        total_usage: cpu.total,
        percpu_usage: cpu.per_cpu,
        usage_in_kernelmode: cpu.kernel,
        usage_in_usermode: cpu.user,
        ..Default::default()
    };
    let throttling = pb::ThrottlingData {
        periods: cpu.throttling.periods,
        throttled_periods: cpu.throttling.throttled_periods,
        throttled_time: cpu.throttling.throttled_time,
        ..Default::default()
    };
    let cpu = pb::CpuStats {
        cpu_usage: MessageField::some(usage),
        throttling_data: MessageField::some(throttling),
        ..Default::default()
    };
    let pids = pb::PidsStats { current: pids.now, limit: pids.limit, ..Default::default() };
    let stats = pb::CgroupStats {
        cpu_stats: MessageField::some(cpu),
        memory_stats: MessageField::some(memory_stats(memory)),
        pids_stats: MessageField::some(pids),
        blkio_stats: MessageField::some(blkio_stats(io)),
        hugetlb_stats: huge_pages.into_iter().map(|(size, pages)| (size, hugetlb(&pages))).collect(),
        ..Default::default()
    };
    pb::StatsContainerResponse { cgroup_stats: MessageField::some(stats), ..Default::default() }
}

fn memory_stats(memory: Memory) -> pb::MemoryStats {
    let data = |usage: &Usage| {
        MessageField::some(pb::MemoryData {
            usage: usage.now,
            max_usage: usage.highest,
            failcnt: usage.failures,
            limit: usage.limit,
            ..Default::default()
        })
    };
    pb::MemoryStats {
        cache: memory.cache,
        usage: data(&memory.usage),
        swap_usage: data(&memory.swap),
        kernel_usage: data(&memory.kernel),
        use_hierarchy: memory.hierarchical,
        stats: memory.details.into_iter().collect::<HashMap<_, _>>(),
        ..Default::default()
    }
}

fn blkio_stats(io: Io) -> pb::BlkioStats {
    let entry = |entry: IoEntry| pb::BlkioStatsEntry {
        major: entry.major,
        minor: entry.minor,
        op: entry.op,
        value: entry.value,
        ..Default::default()
    };
    let entries = |entries: Vec<IoEntry>| entries.into_iter().map(entry).collect();
    pb::BlkioStats {
        io_service_bytes_recursive: entries(io.bytes),
        io_serviced_recursive: entries(io.operations),
        io_queued_recursive: entries(io.queued),
        io_service_time_recursive: entries(io.service_time),
        io_wait_time_recursive: entries(io.wait_time),
        io_merged_recursive: entries(io.merged),
        io_time_recursive: entries(io.time),
        sectors_recursive: entries(io.sectors),
        ..Default::default()
    }
}

fn hugetlb(pages: &HugePages) -> pb::HugetlbStats {
    pb::HugetlbStats { usage: pages.now, max_usage: pages.highest, failcnt: pages.failures, ..Default::default() }
}
