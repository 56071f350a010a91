//! Small questions to CBOR values: maps without a key twice, integers, tagged times.

use ciborium::Value;
use protocols::time::Timestamp;

use super::{CorimError, MAX_CORIM, MAX_DEPTH};

/// Reads exactly one item.
pub(super) fn item(bytes: &[u8]) -> Result<Value, CorimError> {
    if bytes.len() > MAX_CORIM {
        return Err(CorimError::new(format!("has {} bytes, more than {MAX_CORIM}", bytes.len())));
    }
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| CorimError::new(format!("is not CBOR, or nested deeper than {MAX_DEPTH}")))?;
    if rest.is_empty() { Ok(value) } else { Err(CorimError::new("has bytes behind its end")) }
}

/// A map with integer keys, each once.
pub(super) struct Map<'v> {
    what: &'static str,
    members: Vec<(i128, &'v Value)>,
}

impl<'v> Map<'v> {
    pub(super) fn of(value: &'v Value, what: &'static str) -> Result<Self, CorimError> {
        let Value::Map(entries) = value else { return Err(CorimError::new(format!("has a {what} that is no map"))) };
        let mut members: Vec<(i128, &Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Value::Integer(key) = key else {
                return Err(CorimError::new(format!("has a {what} with a key that is no integer")));
            };
            members.push(((*key).into(), value));
        }
        let mut keys: Vec<i128> = members.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(CorimError::new(format!("has a {what} with a key twice")));
        }
        Ok(Self { what, members })
    }

    pub(super) fn get(&self, key: i128) -> Option<&'v Value> {
        self.members.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    pub(super) fn need(&self, key: i128, name: &'static str) -> Result<&'v Value, CorimError> {
        self.get(key).ok_or_else(|| CorimError::new(format!("has a {} without {name}", self.what)))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = i128> {
        self.members.iter().map(|(key, _)| *key)
    }

    /// Nothing but these keys: what is not understood is not skipped.
    pub(super) fn only(&self, known: &[i128]) -> Result<(), CorimError> {
        match self.keys().find(|key| !known.contains(key)) {
            Some(key) => {
                Err(CorimError::new(format!("has a {} with member {key}, which is not understood", self.what)))
            }
            None => Ok(()),
        }
    }
}

pub(super) fn array<'v>(value: &'v Value, what: &'static str) -> Result<&'v [Value], CorimError> {
    match value {
        Value::Array(items) if !items.is_empty() => Ok(items),
        _ => Err(CorimError::new(format!("has {what} that are no list of one or more"))),
    }
}

pub(super) fn text<'v>(value: &'v Value, what: &'static str) -> Result<&'v str, CorimError> {
    value.as_text().ok_or_else(|| CorimError::new(format!("has a {what} that is no text")))
}

pub(super) fn bytes<'v>(value: &'v Value, what: &'static str) -> Result<&'v [u8], CorimError> {
    value.as_bytes().map(Vec::as_slice).ok_or_else(|| CorimError::new(format!("has a {what} that is no byte string")))
}

/// Whole seconds since 1970, tag 1.
pub(super) fn time(value: &Value) -> Result<Timestamp, CorimError> {
    let seconds = match value {
        Value::Tag(1, inner) => inner.as_integer(),
        _ => None,
    };
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Timestamp);
    seconds
        .filter(|time| *time <= Timestamp::MAX)
        .ok_or_else(|| CorimError::new("has a time that is not whole seconds under tag 1"))
}

/// A `validity-map`: from when, and until when.
pub(super) fn validity(value: &Value) -> Result<(Option<Timestamp>, Timestamp), CorimError> {
    let map = Map::of(value, "validity")?;
    map.only(&[0, 1])?;
    Ok((map.get(0).map(time).transpose()?, time(map.need(1, "an end")?)?))
}

/// A text, or a UUID's 16 bytes as its text.
pub(super) fn name(value: &Value, what: &'static str) -> Result<String, CorimError> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Bytes(bytes) if bytes.len() == 16 => Ok(uuid(bytes)),
        _ => Err(CorimError::new(format!("has a {what} that is neither text nor a UUID"))),
    }
}

pub(super) fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
