//! Figures of the agent's process and the guest, in Prometheus' text format, under the names that the runtime's
//! monitor collects.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The most lines of one file that are told.
const MAX_LINES: usize = 512;

/// Everything that can be read beneath the procfs at `proc`; what cannot is left out.
#[must_use]
pub fn metrics(proc: &Path) -> String {
    let read = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let mut text = Text(String::new());
    text.family("kata_agent_proc_status", "Agent process status.", pairs(&read("self/status"), "item"));
    text.family("kata_agent_io_stat", "Agent process IO statistics.", pairs(&read("self/io"), "item"));
    text.family("kata_agent_threads", "Agent process threads.", value(&read("self/status"), "Threads"));
    text.family("kata_guest_meminfo", "Statistics about memory usage in the system.", pairs(&read("meminfo"), "item"));
    text.family("kata_guest_vm_stat", "Guest virtual memory statistics.", pairs(&read("vmstat"), "item"));
    text.family("kata_guest_load", "Guest system load.", load(&read("loadavg")));
    text.family("kata_guest_tasks", "Guest system tasks.", tasks(&read("loadavg")));
    text.family("kata_guest_cpu_time", "Guest CPU statistics.", processors(&read("stat")));
    text.family("kata_guest_netdev_stat", "Guest net devices statistics.", interfaces(proc));
    text.family("kata_guest_diskstat", "Disks statistics in system.", disks(&read("diskstats")));
    text.0
}

/// One figure: its labels, then its value as text that is a number.
type Sample = (Vec<(&'static str, String)>, String);

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.into_iter().map(|(key, text)| format!("{key}=\"{}\"", escape(&text))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// As the format has it in a label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(text: &str) -> Option<String> {
    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| text.to_owned())
}

/// Lines `KEY: NUMBER ...` or `KEY NUMBER`; a memory size keeps its unit of kB.
fn pairs(text: &str, label: &'static str) -> Vec<Sample> {
    let sample = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let key = words.next()?.trim_end_matches(':').to_lowercase();
        let value = number(words.next()?)?;
        let rest = words.next();
        // A list of numbers, such as of users or processors, is no figure.
        rest.is_none_or(|unit| unit == "kB").then(|| (vec![(label, key)], value))
    };
    text.lines().take(MAX_LINES).filter_map(sample).collect()
}

fn value(text: &str, key: &str) -> Vec<Sample> {
    let key = key.to_lowercase();
    let found = pairs(text, "item").into_iter().find(|(labels, _)| labels.iter().any(|(_, item)| *item == key));
    found.map(|(_, value)| (Vec::new(), value)).into_iter().collect()
}

fn load(text: &str) -> Vec<Sample> {
    let values = text.split_ascii_whitespace().map_while(number);
    ["load1", "load5", "load15"]
        .into_iter()
        .zip(values)
        .map(|(item, value)| (vec![("item", item.into())], value))
        .collect()
}

fn tasks(text: &str) -> Vec<Sample> {
    let counts = text.split_ascii_whitespace().nth(3).and_then(|word| word.split_once('/'));
    let both = counts.and_then(|(running, all)| Some([("cur", number(running)?), ("max", number(all)?)]));
    both.into_iter().flatten().map(|(item, value)| (vec![("item", item.into())], value)).collect()
}

fn processors(text: &str) -> Vec<Sample> {
    const ITEMS: [&str; 10] =
        ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
    let lines = text.lines().take(MAX_LINES).filter(|line| line.starts_with("cpu"));
    let samples = lines.flat_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let cpu = match words.next() {
            Some("cpu") => "total".to_owned(),
            other => other.unwrap_or_default().trim_start_matches("cpu").to_owned(),
        };
        ITEMS
            .into_iter()
            .zip(words.map_while(number))
            .map(move |(item, value)| (vec![("cpu", cpu.clone()), ("item", item.to_owned())], value))
    });
    samples.collect()
}

fn interfaces(proc: &Path) -> Vec<Sample> {
    let stats = crate::interface_stats::interface_stats(proc).unwrap_or_default();
    let samples = stats.into_iter().flat_map(|stats| {
        let items = [
            ("recv_bytes", stats.rx_bytes),
            ("recv_packets", stats.rx_packets),
            ("recv_errs", stats.rx_errors),
            ("recv_drop", stats.rx_dropped),
            ("sent_bytes", stats.tx_bytes),
            ("sent_packets", stats.tx_packets),
            ("sent_errs", stats.tx_errors),
            ("sent_drop", stats.tx_dropped),
        ];
        items.into_iter().map(move |(item, value)| {
            (vec![("interface", stats.name.clone()), ("item", item.to_owned())], value.to_string())
        })
    });
    samples.collect()
}

fn disks(text: &str) -> Vec<Sample> {
    const ITEMS: [&str; 11] = [
        "reads",
        "merged",
        "sectors_read",
        "time_reading",
        "writes",
        "writes_merged",
        "sectors_written",
        "time_writing",
        "in_progress",
        "time_in_progress",
        "weighted_time_in_progress",
    ];
    let samples = text.lines().take(MAX_LINES).flat_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        let disk = words.next().unwrap_or_default().to_owned();
        ITEMS
            .into_iter()
            .zip(words.map_while(number))
            .map(move |(item, value)| (vec![("disk", disk.clone()), ("item", item.to_owned())], value))
    });
    samples.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_the_text_format() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        };
        put("self/status", "Name:\tguest-agent\nThreads:\t4\nUid:\t0\t0\t0\t0\nVmRSS:\t  1024 kB\n");
        put("meminfo", "MemTotal:       2048 kB\nHugePages_Total:       0\n");
        put("loadavg", "0.10 0.20 0.30 2/345 6789\n");
        put("stat", "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4\nintr 5\n");
        put("diskstats", " 254 0 vd\"a 1 2 3 4 5 6 7 8 9 10 11 12\n");
        let text = metrics(dir.path());
        for line in [
            "# TYPE kata_guest_meminfo gauge",
            "kata_agent_threads 4",
            "kata_agent_proc_status{item=\"vmrss\"} 1024",
            "kata_guest_meminfo{item=\"memtotal\"} 2048",
            "kata_guest_load{item=\"load15\"} 0.30",
            "kata_guest_tasks{item=\"max\"} 345",
            "kata_guest_cpu_time{cpu=\"total\",item=\"guest_nice\"} 10",
            "kata_guest_cpu_time{cpu=\"0\",item=\"idle\"} 4",
            "kata_guest_diskstat{disk=\"vd\\\"a\",item=\"reads\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("uid"), "four numbers are no figure");
        assert!(!text.contains("netdev"), "what cannot be read is left out");
    }

    #[test]
    fn the_real_machine_is_told() {
        let text = metrics(Path::new("/proc"));
        assert!(text.contains("kata_guest_meminfo{item=\"memtotal\"}"));
        assert!(
            text.lines().all(|line| line.starts_with('#') || line.rsplit(' ').next().unwrap().parse::<f64>().is_ok())
        );
    }
}
