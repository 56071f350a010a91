//! The policy's state, `data.pstate`, and the only way it changes.

use json_patch::{Patch, PatchOperation};
use serde_json::{Map, Value, json};

/// The most bytes of the state's JSON. A policy keeps some hundred bytes per container.
const MAX_STATE: usize = 1024 * 1024;
/// The most operations of one request.
const MAX_OPS: usize = 1024;

/// The data document a policy sees: `{"pstate": {…}}`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State(Value);

impl State {
    pub(crate) fn empty() -> Self {
        Self(json!({ "pstate": Map::new() }))
    }

    /// The data document.
    pub(crate) const fn document(&self) -> &Value {
        &self.0
    }

    /// The state after `ops`, all or none of them.
    pub(crate) fn after(&self, ops: &Patch) -> Result<Self, String> {
        if ops.0.len() > MAX_OPS {
            return Err(format!("more than {MAX_OPS} operations"));
        }
        if let Some(path) = ops.0.iter().flat_map(paths).find(|path| !is_inside(path)) {
            return Err(format!("`{path}` is outside of /pstate/"));
        }
        let mut next = self.0.clone();
        json_patch::patch(&mut next, ops).map_err(|error| error.to_string())?;
        let bytes = serde_json::to_vec(&next).map_err(|error| error.to_string())?.len();
        if bytes > MAX_STATE {
            return Err(format!("it would have {bytes} bytes, more than {MAX_STATE}"));
        }
        Ok(Self(next))
    }
}

/// Every place an operation reads or writes.
fn paths(op: &PatchOperation) -> Vec<String> {
    let from = match op {
        PatchOperation::Move(op) => Some(op.from.to_string()),
        PatchOperation::Copy(op) => Some(op.from.to_string()),
        PatchOperation::Add(_) | PatchOperation::Remove(_) | PatchOperation::Replace(_) | PatchOperation::Test(_) => {
            None
        }
    };
    from.into_iter().chain([op.path().to_string()]).collect()
}

/// Other documents under `data` are rules: a policy that could write there would be another policy.
fn is_inside(path: &str) -> bool {
    path.starts_with("/pstate/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(state: &State, ops: Value) -> Result<State, String> {
        state.after(&serde_json::from_value(ops).unwrap())
    }

    #[test]
    fn operations_change_the_state_all_or_none() {
        let state = State::empty();
        let one = after(&state, json!([{"op": "add", "path": "/pstate/a", "value": 1}])).unwrap();
        assert_eq!(one.document(), &json!({"pstate": {"a": 1}}));
        let ops = json!([{"op": "add", "path": "/pstate/b", "value": 2}, {"op": "remove", "path": "/pstate/none"}]);
        assert!(after(&one, ops).is_err());
        let none = after(&one, json!([{"op": "remove", "path": "/pstate/a"}])).unwrap();
        assert_eq!(none, State::empty());
    }

    #[test]
    fn nothing_outside_of_the_state_is_read_or_written() {
        let state = after(&State::empty(), json!([{"op": "add", "path": "/pstate/a", "value": 1}])).unwrap();
        for ops in [
            json!([{"op": "add", "path": "/agent_policy", "value": {}}]),
            json!([{"op": "add", "path": "/pstate", "value": {}}]),
            json!([{"op": "add", "path": "", "value": {}}]),
            json!([{"op": "remove", "path": "/pstate"}]),
            json!([{"op": "copy", "from": "/pstate", "path": "/pstate/b"}]),
            json!([{"op": "move", "from": "/pstate/a", "path": "/other"}]),
            json!([{"op": "test", "path": "/other", "value": 1}]),
        ] {
            assert!(after(&state, ops.clone()).is_err(), "{ops}");
        }
        assert!(after(&state, json!([{"op": "move", "from": "/pstate/a", "path": "/pstate/b"}])).is_ok());
    }

    #[test]
    fn the_state_is_bounded() {
        let large = json!([{"op": "add", "path": "/pstate/a", "value": "x".repeat(MAX_STATE)}]);
        assert!(after(&State::empty(), large).is_err());
        let many = vec![json!({"op": "add", "path": "/pstate/a", "value": 1}); MAX_OPS + 1];
        assert!(after(&State::empty(), Value::Array(many)).is_err());
    }
}
