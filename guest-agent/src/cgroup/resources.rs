//! Limits that can be changed while a container runs.

use serde_json::{Map, Value, json};

/// New limits; `None` and empty leave what is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The most memory, in bytes.
    pub memory_limit: Option<i64>,
    /// Memory to be left with when memory is short, in bytes.
    pub memory_reservation: Option<i64>,
    /// Memory and swap together, in bytes; -1: no limit.
    pub memory_swap: Option<i64>,
    /// The weight among others.
    pub cpu_shares: Option<u64>,
    /// Microseconds of a period; -1: no limit.
    pub cpu_quota: Option<i64>,
    /// The period, in microseconds.
    pub cpu_period: Option<u64>,
    /// The processors, such as `0-3,7`.
    pub cpus: String,
    /// The memory nodes, in the same form.
    pub mems: String,
    /// The most processes and threads.
    pub pids: Option<i64>,
}

impl Resources {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The OCI form, as JSON text.
    ///
    /// # Errors
    /// Says which value can be none.
    pub fn oci(&self) -> Result<Vec<u8>, &'static str> {
        let list = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-'));
        if !list(&self.cpus) || !list(&self.mems) {
            return Err("a list of processors or nodes has digits, commas and hyphens only");
        }
        let number = |value: Option<i64>| value.map(Value::from);
        let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
        let object = |entries: Vec<(&str, Option<Value>)>| {
            let named = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            Value::Object(named.collect::<Map<_, _>>())
        };
        let memory = object(vec![
            ("limit", number(self.memory_limit)),
            ("reservation", number(self.memory_reservation)),
            ("swap", number(self.memory_swap)),
        ]);
        let cpu = object(vec![
            ("shares", self.cpu_shares.map(Value::from)),
            ("quota", number(self.cpu_quota)),
            ("period", self.cpu_period.map(Value::from)),
            ("cpus", text(&self.cpus)),
            ("mems", text(&self.mems)),
        ]);
        let mut resources = json!({ "memory": memory, "cpu": cpu });
        if let (Some(pids), Some(object)) = (self.pids, resources.as_object_mut()) {
            object.insert("pids".to_owned(), json!({ "limit": pids }));
        }
        serde_json::to_vec(&resources).map_err(|_| "the limits have no JSON form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_said() {
        let resources = Resources { memory_limit: Some(1 << 20), cpus: "0-1".to_owned(), ..Default::default() };
        let value: Value = serde_json::from_slice(&resources.oci().unwrap()).unwrap();
        assert_eq!(value, json!({ "memory": { "limit": 1_048_576 }, "cpu": { "cpus": "0-1" } }));
        assert!(Resources::default().is_empty() && !resources.is_empty());
        let pids = Resources { pids: Some(7), ..Default::default() };
        let value: Value = serde_json::from_slice(&pids.oci().unwrap()).unwrap();
        assert_eq!(value["pids"]["limit"], 7);
        assert!(Resources { cpus: "0\n1".to_owned(), ..Default::default() }.oci().is_err());
    }
}
