//! The runs as a table for people and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::measure::{Run, Usage};

/// Whom ratios refer to.
const REFERENCE: &str = "containerd";
const MEGABYTE: f64 = 1e6;

/// One run, in one line.
pub(crate) fn line(name: &str, usage: &Usage) -> String {
    format!(
        "{name:14} CPU {:6.2} s  wall {:6.2} s  peak {:6.1} MB  stored {:7.1} MB in {:6}  written {:7.1} MB",
        usage.cpu,
        usage.wall,
        megabytes(usage.peak),
        megabytes(usage.stored),
        usage.inodes,
        megabytes(usage.written),
    )
}

/// Medians of all rounds, image by image, as a Markdown table.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| image | who | CPU s | of containerd's | wall s | peak RSS MB | stored MB | inodes | written MB |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (image, who, usage, ratio) in medians(runs) {
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let _ = writeln!(
            text,
            "| {image} | {who} | {:.2} | {ratio} | {:.2} | {:.1} | {:.1} | {} | {:.1} |",
            usage.cpu,
            usage.wall,
            megabytes(usage.peak),
            megabytes(usage.stored),
            usage.inodes,
            megabytes(usage.written),
        );
    }
    text
}

/// Every run and the medians.
pub(crate) fn json(runs: &[Run], rounds: usize) -> Value {
    let medians: Vec<Value> = medians(runs)
        .into_iter()
        .map(|(image, who, usage, ratio)| merged(&image, &who, &usage, json!({"cpu_of_containerd": ratio})))
        .collect();
    let runs: Vec<Value> = runs.iter().map(|run| merged(&run.image, &run.contender, &run.usage, json!({}))).collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    json!({"kernel": kernel.trim(), "cpus": cpus, "rounds": rounds, "medians": medians, "runs": runs})
}

fn merged(image: &str, who: &str, usage: &Usage, more: Value) -> Value {
    let mut value = json!({
        "image": image, "who": who, "cpu_seconds": usage.cpu, "wall_seconds": usage.wall, "peak_rss_bytes": usage.peak,
        "stored_bytes": usage.stored, "inodes": usage.inodes, "written_bytes": usage.written,
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

/// Image, contender, medians and CPU time as a part of the reference's, in the order of the runs.
fn medians(runs: &[Run]) -> Vec<(String, String, Usage, Option<f64>)> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for run in runs {
        let key = (run.image.as_str(), run.contender.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let of = |image: &str, who: &str| {
        let usages = runs.iter().filter(|run| run.image == image && run.contender == who).map(|run| run.usage);
        median(&usages.collect::<Vec<_>>())
    };
    let row = |(image, who): (&str, &str)| {
        let usage = of(image, who)?;
        let ratio = of(image, REFERENCE).filter(|reference| reference.cpu > 0.0).map(|them| usage.cpu / them.cpu);
        Some((image.to_owned(), who.to_owned(), usage, ratio))
    };
    // Images pulled in turns stay together.
    keys.into_iter().filter_map(row).collect()
}

/// Each figure's own median; of an even number the lower one.
fn median(usages: &[Usage]) -> Option<Usage> {
    fn of<T: Copy>(
        usages: &[Usage],
        figure: impl Fn(&Usage) -> T,
        order: impl Fn(&T, &T) -> std::cmp::Ordering,
    ) -> Option<T> {
        let mut figures: Vec<T> = usages.iter().map(figure).collect();
        figures.sort_by(order);
        figures.get(figures.len().checked_sub(1)? / 2).copied()
    }
    Some(Usage {
        cpu: of(usages, |usage| usage.cpu, f64::total_cmp)?,
        wall: of(usages, |usage| usage.wall, f64::total_cmp)?,
        peak: of(usages, |usage| usage.peak, u64::cmp)?,
        written: of(usages, |usage| usage.written, u64::cmp)?,
        stored: of(usages, |usage| usage.stored, u64::cmp)?,
        inodes: of(usages, |usage| usage.inodes, u64::cmp)?,
    })
}

#[allow(clippy::cast_precision_loss)] // a figure to be read
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    fn run(contender: &str, cpu: f64, peak: u64) -> Run {
        let usage = Usage { cpu, peak, ..Usage::default() };
        Run { image: "many:gzip".to_owned(), contender: contender.to_owned(), usage }
    }

    #[test]
    fn ratios_are_of_medians() {
        let runs = [
            run("ours", 1.0, 3),
            run("containerd", 10.0, 9),
            run("ours", 9.0, 1),
            run("containerd", 8.0, 9),
            run("ours", 0.8, 2),
            run("containerd", 90.0, 9),
        ];
        let rows = medians(&runs);
        let (_, who, usage, ratio) = rows.first().unwrap();
        assert_eq!((who.as_str(), usage.cpu, usage.peak, ratio.unwrap()), ("ours", 1.0, 2, 0.1));
        assert_eq!(rows.len(), 2);
        assert!(table(&runs).contains("| many:gzip | ours | 1.00 | 0.100 |"));
        assert_eq!(json(&runs, 3)["medians"][1]["cpu_of_containerd"], 1.0);
    }

    #[test]
    fn without_the_reference_there_is_no_ratio() {
        assert_eq!(medians(&[run("ours", 1.0, 1)]).first().unwrap().3, None);
    }
}
