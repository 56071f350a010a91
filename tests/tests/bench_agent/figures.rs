//! Figures as a table for people and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// No more than this.
    Most(f64),
    /// No less than this.
    Least(f64),
}

#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    bound: Option<Bound>,
    /// The lowest and the highest that were measured.
    range: Option<(f64, f64)>,
}

/// All figures, in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn put(&mut self, name: &str, value: f64, unit: &'static str, bound: Option<Bound>) {
        self.push(Figure { name: name.to_owned(), value, unit, bound, range: None });
    }

    /// The median in milliseconds.
    pub(crate) fn median(&mut self, name: &str, times: &[Duration], bound: Option<Bound>) {
        let range = (milliseconds(times.iter().min()), milliseconds(times.iter().max()));
        let (name, value) = (name.to_owned(), median(times));
        self.push(Figure { name, value, unit: "ms", bound, range: Some(range) });
    }

    fn push(&mut self, figure: Figure) {
        eprintln!("{}: {:.2} {}", figure.name, figure.value, figure.unit); // what is long under way tells so
        self.0.push(figure);
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::from("| figure | measured | lowest to highest | wanted |\n|---|---|---|---|\n");
        for Figure { name, value, unit, bound, range } in &self.0 {
            let range = range.map_or_else(String::new, |(low, high)| format!("{low:.1} to {high:.1}"));
            let bound = match bound {
                Some(Bound::Most(most)) => format!("at most {most:.1}"),
                Some(Bound::Least(least)) => format!("at least {least:.0}"),
                None => String::new(),
            };
            let _ = writeln!(text, "| {name} | {value:.2} {unit} | {range} | {bound} |");
        }
        text
    }

    pub(crate) fn json(&self, settings: Value) -> Value {
        let figure = |figure: &Figure| {
            let bound = figure.bound.map(|bound| match bound {
                Bound::Most(most) => json!({ "most": most }),
                Bound::Least(least) => json!({ "least": least }),
            });
            json!({ "name": figure.name, "value": figure.value, "unit": figure.unit, "range": figure.range, "wanted": bound })
        };
        let text = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        json!({
            "kernel": text("/proc/sys/kernel/osrelease"),
            "load": text("/proc/loadavg"),
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "settings": settings,
            "figures": self.0.iter().map(figure).collect::<Vec<_>>(),
        })
    }
}

/// The median in milliseconds; of an even number the lower one.
pub(crate) fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    milliseconds(times.get(times.len().saturating_sub(1) / 2))
}

fn milliseconds(time: Option<&Duration>) -> f64 {
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
