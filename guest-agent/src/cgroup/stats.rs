//! What a container uses, read from its control groups. A file that is not there counts as nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::parse::{IoEntry, io_entries, io_stat, keyed, number, numbers};
use super::{Cgroup, read_file};

/// Everything that is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub io: Io,
    /// Huge pages by their size, such as `2MB`.
    pub huge_pages: BTreeMap<String, HugePages>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// In total.
    pub total: u64,
    /// On each processor; version 2 does not tell.
    pub per_cpu: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// Outside the kernel.
    pub user: u64,
    /// What a quota has cost.
    pub throttling: Throttling,
}

/// What a quota has cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods there were.
    pub periods: u64,
    /// Periods in which it had to wait.
    pub throttled_periods: u64,
    /// How long it had to wait, in nanoseconds.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Page cache.
    pub cache: u64,
    /// All memory.
    pub usage: Usage,
    /// Memory and swap together in version 1, swap alone in version 2.
    pub swap: Usage,
    /// Memory of the kernel.
    pub kernel: Usage,
    /// Whether groups beneath count too; always in version 2.
    pub hierarchical: bool,
    /// The kernel's own detailed numbers: `memory.stat`.
    pub details: BTreeMap<String, u64>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Now.
    pub now: u64,
    /// The most there was.
    pub highest: u64,
    /// How often the limit was met.
    pub failures: u64,
    /// The limit; the largest number, or version 1's largest page-aligned one, where there is none.
    pub limit: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pids {
    /// Now.
    pub now: u64,
    /// The limit; 0 where there is none.
    pub limit: u64,
}

/// Block devices, groups beneath among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Io {
    /// Bytes.
    pub bytes: Vec<IoEntry>,
    /// Operations.
    pub operations: Vec<IoEntry>,
    /// Operations that wait.
    pub queued: Vec<IoEntry>,
    /// Time of service, in nanoseconds.
    pub service_time: Vec<IoEntry>,
    /// Time of waiting, in nanoseconds.
    pub wait_time: Vec<IoEntry>,
    /// Operations that were merged.
    pub merged: Vec<IoEntry>,
    /// Time of the device, in milliseconds.
    pub time: Vec<IoEntry>,
    /// Sectors.
    pub sectors: Vec<IoEntry>,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Now.
    pub now: u64,
    /// The most there was; version 2 does not tell.
    pub highest: u64,
    /// How often the limit was met.
    pub failures: u64,
}

impl Cgroup {
    /// Reads everything. Blocks as long as the kernel takes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let has = |controller: &str| self.v1.contains_key(controller);
        Stats {
            cpu: if has("cpuacct") || has("cpu") { self.cpu_v1() } else { self.cpu_v2() },
            memory: if has("memory") { self.memory_v1() } else { self.memory_v2() },
            pids: self.pids(),
            io: if has("blkio") { self.io_v1() } else { self.io_v2() },
            huge_pages: self.huge_pages(),
        }
    }

    fn cpu_v1(&self) -> Cpu {
        let acct = |file: &str| self.v1("cpuacct", file).unwrap_or_default();
        let stat = keyed(&self.v1("cpu", "cpu.stat").unwrap_or_default());
        Cpu {
            total: number(&acct("cpuacct.usage")),
            per_cpu: numbers(&acct("cpuacct.usage_percpu")),
            kernel: number(&acct("cpuacct.usage_sys")),
            user: number(&acct("cpuacct.usage_user")),
            throttling: Throttling {
                periods: of(&stat, "nr_periods"),
                throttled_periods: of(&stat, "nr_throttled"),
                throttled_time: of(&stat, "throttled_time"),
            },
        }
    }

    fn cpu_v2(&self) -> Cpu {
        let stat = keyed(&self.v2("cpu.stat"));
        let nanoseconds = |key: &str| of(&stat, key).saturating_mul(1000);
        Cpu {
            total: nanoseconds("usage_usec"),
            per_cpu: Vec::new(),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            throttling: Throttling {
                periods: of(&stat, "nr_periods"),
                throttled_periods: of(&stat, "nr_throttled"),
                throttled_time: nanoseconds("throttled_usec"),
            },
        }
    }

    fn memory_v1(&self) -> Memory {
        let file = |name: String| number(&self.v1("memory", &name).unwrap_or_default());
        let usage = |kind: &str| Usage {
            now: file(format!("memory.{kind}usage_in_bytes")),
            highest: file(format!("memory.{kind}max_usage_in_bytes")),
            failures: file(format!("memory.{kind}failcnt")),
            limit: file(format!("memory.{kind}limit_in_bytes")),
        };
        let details = keyed(&self.v1("memory", "memory.stat").unwrap_or_default());
        Memory {
            cache: of(&details, "cache"),
            usage: usage(""),
            swap: usage("memsw."),
            kernel: usage("kmem."),
            hierarchical: file("memory.use_hierarchy".to_owned()) == 1,
            details,
        }
    }

    fn memory_v2(&self) -> Memory {
        let file = |name: &str| number(&self.v2(name));
        let details = keyed(&self.v2("memory.stat"));
        let events = keyed(&self.v2("memory.events"));
        let swap_events = keyed(&self.v2("memory.swap.events"));
        Memory {
            cache: of(&details, "file"),
            usage: Usage {
                now: file("memory.current"),
                highest: file("memory.peak"),
                failures: of(&events, "max"),
                limit: file("memory.max"),
            },
            swap: Usage {
                now: file("memory.swap.current"),
                highest: file("memory.swap.peak"),
                failures: of(&swap_events, "max"),
                limit: file("memory.swap.max"),
            },
            kernel: Usage { now: of(&details, "kernel"), ..Default::default() },
            hierarchical: self.v2.is_some(),
            details,
        }
    }

    fn pids(&self) -> Pids {
        let file = |name: &str| number(&self.v1("pids", name).unwrap_or_else(|| self.v2(name)));
        let limit = file("pids.max");
        Pids { now: file("pids.current"), limit: if limit == u64::MAX { 0 } else { limit } }
    }

    fn io_v1(&self) -> Io {
        let file = |name: &str| io_entries(&self.v1("blkio", name).unwrap_or_default());
        // Only some schedulers count in the first file; the throttling layer always counts.
        let first_of = |names: [&str; 3]| names.into_iter().map(file).find(|list| !list.is_empty()).unwrap_or_default();
        Io {
            bytes: first_of([
                "blkio.io_service_bytes_recursive",
                "blkio.throttle.io_service_bytes_recursive",
                "blkio.throttle.io_service_bytes",
            ]),
            operations: first_of([
                "blkio.io_serviced_recursive",
                "blkio.throttle.io_serviced_recursive",
                "blkio.throttle.io_serviced",
            ]),
            queued: file("blkio.io_queued_recursive"),
            service_time: file("blkio.io_service_time_recursive"),
            wait_time: file("blkio.io_wait_time_recursive"),
            merged: file("blkio.io_merged_recursive"),
            time: file("blkio.time_recursive"),
            sectors: file("blkio.sectors_recursive"),
        }
    }

    fn io_v2(&self) -> Io {
        let (bytes, operations) = io_stat(&self.v2("io.stat"));
        Io { bytes, operations, ..Default::default() }
    }

    fn huge_pages(&self) -> BTreeMap<String, HugePages> {
        let v1 = self.v1.get("hugetlb");
        let Some(dir) = v1.or(self.v2.as_ref()) else { return BTreeMap::new() };
        let end = if v1.is_some() { ".usage_in_bytes" } else { ".current" };
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let sizes = names.filter_map(|name| {
            let size = name.to_str()?.strip_prefix("hugetlb.")?.strip_suffix(end)?;
            // `rsvd` files count what is reserved, not what is used.
            (!size.contains('.')).then(|| size.to_owned())
        });
        sizes.map(|size| (size.clone(), huge_pages(dir, &size, v1.is_some()))).collect()
    }
}

fn huge_pages(dir: &Path, size: &str, v1: bool) -> HugePages {
    let file = |name: &str| read_file(&dir.join(format!("hugetlb.{size}.{name}")));
    if v1 {
        HugePages {
            now: number(&file("usage_in_bytes")),
            highest: number(&file("max_usage_in_bytes")),
            failures: number(&file("failcnt")),
        }
    } else {
        HugePages { now: number(&file("current")), highest: 0, failures: of(&keyed(&file("events")), "max") }
    }
}

fn of(map: &BTreeMap<String, u64>, key: &str) -> u64 {
    map.get(key).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/cgroup").join(name)
    }

    fn v1() -> Cgroup {
        let controllers = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb"];
        let v1 = controllers.map(|controller| (controller.to_owned(), data("v1").join(controller)));
        Cgroup { v1: v1.into(), v2: None }
    }

    fn entry(op: &str, value: u64) -> IoEntry {
        IoEntry { major: 254, minor: 0, op: op.to_owned(), value }
    }

    #[test]
    fn version_1_is_read() {
        let stats = v1().stats();
        assert_eq!(stats.cpu.total, 123_456_789);
        assert_eq!(stats.cpu.per_cpu, [100_000_000, 23_456_789]);
        assert_eq!((stats.cpu.kernel, stats.cpu.user), (23_000_000, 100_456_789));
        let throttling = Throttling { periods: 40, throttled_periods: 3, throttled_time: 5_000_000 };
        assert_eq!(stats.cpu.throttling, throttling);
        assert_eq!(stats.memory.cache, 4_096_000);
        let usage = Usage { now: 8_388_608, highest: 16_777_216, failures: 2, limit: 33_554_432 };
        assert_eq!(stats.memory.usage, usage);
        assert_eq!(stats.memory.swap.limit, 67_108_864);
        assert_eq!(stats.memory.kernel.now, 524_288);
        assert!(stats.memory.hierarchical);
        assert_eq!(stats.memory.details.get("total_inactive_file"), Some(&1_024_000));
        assert_eq!(stats.pids, Pids { now: 3, limit: 4096 });
        assert_eq!(stats.io.bytes, [entry("Read", 1_048_576), entry("Write", 4096)]);
        assert_eq!(stats.io.operations, [entry("Read", 20), entry("Write", 1)]);
        assert_eq!(stats.io.time, [entry("", 12)]);
        let pages = HugePages { now: 2_097_152, highest: 4_194_304, failures: 1 };
        assert_eq!(stats.huge_pages, BTreeMap::from([("2MB".to_owned(), pages)]));
    }

    #[test]
    fn version_2_is_read() {
        let stats = Cgroup { v1: BTreeMap::new(), v2: Some(data("v2")) }.stats();
        assert_eq!((stats.cpu.total, stats.cpu.kernel, stats.cpu.user), (123_456_000, 23_000_000, 100_456_000));
        assert_eq!(stats.cpu.throttling.throttled_time, 5_000_000);
        let usage = Usage { now: 8_388_608, highest: 16_777_216, failures: 2, limit: u64::MAX };
        assert_eq!(stats.memory.usage, usage);
        assert_eq!((stats.memory.cache, stats.memory.kernel.now), (4_096_000, 524_288));
        assert_eq!(stats.pids, Pids { now: 3, limit: 0 });
        assert_eq!(stats.io.bytes, [entry("Read", 1_048_576), entry("Write", 4096), entry("Discard", 0)]);
        assert_eq!(stats.io.operations.len(), 3);
        let pages = HugePages { now: 2_097_152, highest: 0, failures: 1 };
        assert_eq!(stats.huge_pages, BTreeMap::from([("2MB".to_owned(), pages)]));
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        assert_eq!(Cgroup::default().stats(), Stats::default());
        let gone = Cgroup { v1: BTreeMap::new(), v2: Some("/nonexistent".into()) };
        assert_eq!(
            gone.stats(),
            Stats { memory: Memory { hierarchical: true, ..Default::default() }, ..Default::default() }
        );
    }
}
